"""Programs signed with a key that everybody has, and the firmware's variables in which it is enrolled.

Debian's OVMF comes with both, for tests ("snakeoil"); systemd has the tool that signs (systemd-sbsign(1), 257).
"""

from pathlib import Path

from cryptography.hazmat.primitives import serialization

from vmtests.errors import InputError
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox

_KEY, _CERTIFICATE = "usr/share/ovmf/PkKek-1-snakeoil.key", "usr/share/ovmf/PkKek-1-snakeoil.pem"
_PASSWORD = b"snakeoil"
_VARIABLES = "usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
_SIGNER = "usr/lib/systemd/systemd-sbsign"


def variables(toolbox: Toolbox) -> Path:
    """Return the firmware's variables with the key; raises InputError where there are none."""
    return _find(toolbox, _VARIABLES) / _VARIABLES


def sign(toolbox: Toolbox, program: Path, scratch: Path) -> None:
    """Sign an EFI program, which is replaced; raises InputError where there is no key, HostError as the tool does."""
    keys, signer = _find(toolbox, _KEY), _find(toolbox, _SIGNER)
    key = serialization.load_pem_private_key((keys / _KEY).read_bytes(), _PASSWORD)
    plain, certificate, signed = scratch / "key.pem", scratch / "certificate.pem", scratch / "signed"
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    plain.write_bytes(key.private_bytes(*kind))
    certificate.write_bytes((keys / _CERTIFICATE).read_bytes())
    options = (f"--private-key={plain}", f"--certificate={certificate}", f"--output={signed}")
    run_in(signer, [f"/{_SIGNER}", "sign", *options, str(program)])
    signed.replace(program)


def _find(toolbox: Toolbox, file: str) -> Path:
    for root in (toolbox.tree, Path("/")):
        if root is not None and (root / file).is_file():
            return root
    raise InputError(f"there is no {Path(file).name} on this host", hint="Debian: apt-get install ovmf systemd-ukify")
