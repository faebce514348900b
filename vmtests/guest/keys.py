"""The key by which a run gets into its guests over ssh, and where a guest keeps those by which it is known."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vmtests.errors import at_named

HOST_KEYS_COMMAND = "cat /etc/ssh/ssh_host_*_key.pub"
"""What is run over the serial console to learn the guest's host keys (sshd(8), FILES)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key pair: the private key's file (mode 0600) for `ssh -i`, and the line for `authorized_keys`."""

    path: Path
    public: str

    @classmethod
    def generate(cls, directory: Path) -> Self:
        """Make an ed25519 pair in `directory`; raises InputError when that cannot be, or is done already."""
        private = Ed25519PrivateKey.generate()
        path = directory / "id_ed25519"
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        public = f"{line} vmtests"
        try:
            path.touch(0o600, exist_ok=False)
            path.write_bytes(pem)
            path.with_name(f"{path.name}.pub").write_text(f"{public}\n")
        except OSError as error:
            raise at_named(f"the ssh key {path} cannot be written", error, "name another directory") from error
        return cls(path=path, public=public)

    def copy(self, directory: Path) -> "Key":
        """Copy the pair into `directory`; raises InputError when it cannot be there, HostError on a full disk."""
        path = directory / self.path.name
        try:
            path.touch(0o600)
            path.write_bytes(self.path.read_bytes())
            path.with_name(f"{path.name}.pub").write_text(f"{self.public}\n")
        except OSError as error:
            raise at_named(f"the ssh key {path} cannot be written", error, "name another directory") from error
        return Key(path=path, public=self.public)

    def forget(self) -> None:
        """Remove the pair, and its directory where nothing else is in it; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.with_name(f"{self.path.name}.pub").unlink(missing_ok=True)
            self.path.parent.rmdir()
