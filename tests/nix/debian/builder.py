"""Real Nix on a store of its own, in which nixpkgs' builders find Debian 13 where they look for programs.

Nothing is fetched but two Debian trees; nothing is compiled but nixpkgs' switch-to-configuration, by Debian's rustc.
"""

import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.host import tree as trees

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]

_NIX_CONF = """\
build-users-group =
cores = 1
experimental-features = nix-command flakes
filter-syscalls = false
flake-registry =
keep-going = true
max-jobs = 2
sandbox = false
substituters =
"""
_PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_SWITCH = "pkgs/by-name/sw/switch-to-configuration-ng/src/main.rs"
# Options of rust-ini 0.21.3 that Debian's 0.21.1 has not; either is off.
_UNKNOWN_OPTIONS = ("enabled_indented_mutiline_value", "enabled_preserve_key_leading_whitespace")
_TRIES = 5  # Nix takes a builder that ends at once for killed, now and then; what was built stays built
_KILLED = "signal 9"
_TAIL = 60  # lines of Nix's output that are kept for an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """A checkout of nixpkgs, the Debian tree, switch-to-configuration, and a directory for the store and disks."""

    nixpkgs: Path
    tree: Path
    switch: Path
    directory: Path

    def _binds(self) -> list[str]:
        command = ["bwrap", "--die-with-parent", "--unshare-pid"]
        if os.geteuid() != 0:
            command += ["--unshare-user", "--uid", "0", "--gid", "0"]
        return command

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs `command` where /usr is Debian's, /nix the store, and no network is."""
        etc = self.directory / "etc"
        store = self.directory / "nix"
        for path in (etc, store / "var/nix"):
            path.mkdir(parents=True, exist_ok=True)
        (etc / "nix.conf").write_text(_NIX_CONF)
        (etc / "passwd").write_text(_PASSWD)
        (etc / "group").write_text(_GROUP)
        links = [word for name in ("bin", "sbin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")]
        seen = [
            word
            for path in (PROJECT, self.nixpkgs, self.tree, self.switch)
            for word in ("--ro-bind", str(path), str(path))
        ]
        return [
            *self._binds(),
            *("--unshare-net", "--tmpfs", "/", "--ro-bind", f"{self.tree}/usr", "/usr", *links),
            *("--ro-bind", str(etc), "/etc", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
            *("--dir", "/root", "--dir", "/var/tmp", *seen, "--bind", str(store), "/nix"),
            *("--clearenv", "--setenv", "HOME", "/root", "--setenv", "PATH", "/usr/bin:/usr/sbin"),
            *("--setenv", "NIX_CONF_DIR", "/etc", "--setenv", "TMPDIR", "/tmp", "--chdir", "/", "--"),
            *command,
        ]

    def beside(self, *command: str) -> list[str]:
        """Return the command line that runs `command` on this host as it is, with the store at /nix."""
        binds = []
        for entry in sorted(Path("/").iterdir()):
            if entry.is_symlink():
                binds += ["--symlink", os.fspath(entry.readlink()), os.fspath(entry)]
            elif entry.is_dir() and entry.name not in {"nix", "proc", "dev"}:
                binds += ["--bind-try", os.fspath(entry), os.fspath(entry)]
        store = os.fspath(self.directory / "nix")
        return [
            *self._binds(),
            *("--tmpfs", "/", *binds, "--proc", "/proc", "--dev-bind", "/dev", "/dev", "--bind", store, "/nix"),
            *("--chdir", os.fspath(Path.cwd()), "--", *command),
        ]

    def build(self, attribute: str, modules: Sequence[str] = ()) -> str:
        """Build an attribute of default.nix with further modules, each an expression of Nix; return its store path.

        Raises HostError with what Nix said last.
        """
        command = self.inside(
            "nix-build",
            os.fspath(HERE),
            *("--arg", "nixpkgs", os.fspath(self.nixpkgs), "--argstr", "tree", os.fspath(self.tree)),
            *("--arg", "switch", os.fspath(self.switch)),
            *("--arg", "modules", f"[ {' '.join(f'({module})' for module in modules)} ]"),
            *("--attr", attribute, "--keep-going", "--no-out-link"),
        )
        tail: deque[str] = deque(maxlen=_TAIL)
        for _ in range(_TRIES):
            with progress.step(f"nix-build {attribute}") as running:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                with process:
                    assert process.stdout is not None
                    killed = False
                    for line in process.stdout:
                        tail.append(line.rstrip())
                        running.note(line)
                        killed |= _KILLED in line
            if process.returncode == 0:
                return tail[-1]
            if not killed:
                break
        print("\n".join(tail), file=sys.stderr)
        said = [line.strip() for line in tail if "error:" in line]
        raise HostError(f"nix-build {attribute}: {said[0] if said else 'failed'}")

    def export(self, path: str, without: str, archive: Path) -> None:
        """Write what `path` needs of the store and `without` does not, as `nix-store --import` reads it."""
        script = 'nix-store --export $(comm -13 <(nix-store -qR "$2" | sort) <(nix-store -qR "$1" | sort))'
        with archive.open("wb") as out:
            subprocess.run(self.inside("bash", "-euc", script, "-", path, without), check=True, stdout=out)

    def outside(self, path: str) -> Path:
        """Return where a path of the store is on this host."""
        return self.directory / path.removeprefix("/")

    def assemble(self, spec: str, disk: Path) -> None:
        """Build the disk that the image.json `spec` of the store describes."""
        command = self.beside(sys.executable, "-m", "vmtests.cli", "build", "--spec", spec, "--out", os.fspath(disk))
        subprocess.run(command, check=True, cwd=PROJECT)


def make_switch(nixpkgs: Path, directory: Path) -> Path:
    """Compile nixpkgs' switch-to-configuration in `directory`, with the crates that Debian has; return the program."""
    packages = (HERE / "rust.txt").read_text().split()
    tree = trees.make_tree(packages, name="rust", title="Debian 13's rustc (about 200 MB to fetch)")
    shutil.copytree(HERE / "switch", directory, dirs_exist_ok=True)
    source = (nixpkgs / _SWITCH).read_text().splitlines(keepends=True)
    main = directory / "src/main.rs"
    main.parent.mkdir(exist_ok=True)
    main.write_text("".join(line for line in source if not any(option in line for option in _UNKNOWN_OPTIONS)))
    links = [word for name in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    command = [
        *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net"),
        *("--tmpfs", "/", "--ro-bind", f"{tree}/usr", "/usr", *links, "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", "/tmp", "--bind", os.fspath(directory), "/work", "--chdir", "/work"),
        *("--clearenv", "--setenv", "PATH", "/usr/bin", "--setenv", "HOME", "/tmp"),
        *("--setenv", "RUSTFLAGS", "-Clinker=gcc", "--", "cargo", "build", "--offline"),
        *("--config", 'source.crates-io.replace-with="debian"'),
        *("--config", 'source.debian.directory="/usr/share/cargo/registry"'),
    ]
    with progress.step("compile nixpkgs' switch-to-configuration"):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise HostError("nixpkgs' switch-to-configuration does not compile with Debian 13's crates")
    return directory / "target/debug/switch-to-configuration"


def make(nixpkgs: Path, directory: Path) -> Builder:
    """Return a builder for a checkout of nixpkgs; raises InputError when it is none."""
    nixpkgs = nixpkgs.absolute()
    if not (nixpkgs / "nixos/lib/eval-config.nix").is_file():
        raise InputError(f"{nixpkgs} is no checkout of nixpkgs", hint="make nixos-vmtests NIXPKGS=/path/of/nixpkgs")
    packages = (HERE / "packages.txt").read_text().split()
    tree = trees.make_tree(packages, name="nixos", title="NixOS' programs, from Debian 13 (about 150 MB to fetch)")
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.absolute()
    switch = make_switch(nixpkgs, directory / "switch")
    return Builder(nixpkgs=nixpkgs, tree=tree, switch=switch, directory=directory)
