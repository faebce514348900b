"""Makes a flake without inputs whose image is the reference image's Debian, and a `nix` that runs it.

python -m tests.nix.closure.make DIRECTORY

Then `PATH=DIRECTORY/bin:$PATH pytest vmtests/ --vm-image=nix:path:DIRECTORY/flake#imageScript` proves the door by
which NixOS comes in: real Nix evaluates the project's modules, builds the closure and its registration, and renders
image.json.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.host import tools
from vmtests.host.tools import Toolbox
from vmtests.image import reference
from vmtests.image.reference import Modules
from vmtests.image.spec import ImageSpec
from vmtests.resources import cache_dir

PROJECT = Path(__file__).parents[3]

_CONFIGURATION = """\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
flake-registry =
warn-dirty = false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The files of an image: two directories for the store, three for the ESP; and its root and command line."""

    userland: Path
    userland_name: str
    system: Path
    kernel: Path
    initrd: Path
    loader: Path
    root: Sequence[Mapping[str, str]] = ()
    params: Sequence[str] = ()


def write_nix(directory: Path, toolbox: Toolbox) -> Path:
    """Write a program `nix`: the toolbox's, on a store of its own in `directory`, with the host's other programs.

    Nix's store has to be at /nix/store, which a mount namespace sees to. The program of the tools tree is started by
    that tree's own dynamic linker, because all else below /usr is the host's.
    """
    store, configuration, program = directory / "store/nix", directory / "conf", directory / "bin/nix"
    # Without its state directory Nix would take a store in the home directory, unless it is root.
    for path in (store / "var/nix", configuration, program.parent):
        path.mkdir(parents=True, exist_ok=True)
    (configuration / "nix.conf").write_text(_CONFIGURATION)
    command = ["bwrap", "--die-with-parent", "--unshare-pid"]
    if os.geteuid() != 0:
        command.append("--unshare-user")
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            command += ["--symlink", os.fspath(entry.readlink()), os.fspath(entry)]
        elif entry.is_dir() and entry.name not in {"nix", "proc", "dev"}:
            command += ["--bind-try", os.fspath(entry), os.fspath(entry)]
    command += ["--proc", "/proc", "--dev-bind", "/dev", "/dev", "--bind", os.fspath(store), "/nix"]
    command += ["--setenv", "NIX_CONF_DIR", os.fspath(configuration), "--setenv", "HOME", os.fspath(directory)]
    command.append("--")
    root = toolbox.root("nix-store")
    if root != Path("/"):
        library = root / "usr/lib/x86_64-linux-gnu"
        command += [os.fspath(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", os.fspath(library)]
    # Without a hook for remote builders, which Nix would start as /proc/self/exe: that is the dynamic linker.
    command += [os.fspath(root / "usr/bin/nix"), "--option", "build-hook", ""]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    return program


def write_flake(directory: Path, content: Content, name: str) -> None:
    """Write the flake: copies of the project's modules, and the files of `content`."""
    for part in ("nix", "fixtures/contract.toml", "tests/nix/nixpkgs", "tests/nix/closure"):
        target = directory / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(PROJECT / part, target)
    shutil.copy2(PROJECT / "tests/nix/closure/flake.nix", directory / "flake.nix")
    files = directory / "content"
    files.mkdir()
    subprocess.run(["cp", "-rT", "--reflink=auto", content.userland, files / "userland"], check=True)
    shutil.copytree(content.system, files / "system", symlinks=True)
    shutil.copy2(content.kernel, files / "bzImage")
    shutil.copy2(content.initrd, files / "initrd")
    shutil.copy2(content.loader, files / "systemd-bootx64.efi")
    machine: dict[str, Any] = {
        "name": name,
        "python": sys.executable,
        "vmtests": f"{shlex.quote(sys.executable)} -m vmtests.cli",
        "userland": content.userland_name,
        "root": content.root,
        "params": content.params,
    }
    (directory / "machine.json").write_text(json.dumps(machine))


def from_reference(spec: ImageSpec, contract: Contract) -> Content:
    """Return the files of the reference image, with the console of a stock cloud image: no getty on it."""
    userland, system = (spec.store.source(path) for path in spec.store.paths[:2])
    entry = spec.esp[contract.boot.entry].read_text()
    options = next(line for line in entry.splitlines() if line.startswith("options ")).split()[1:]
    own = {"root=fstab", "loglevel=4", "panic=1"}
    root = [
        {key: value for key, value in fields.items() if value is not None}
        for entry in spec.root
        if not entry.path.startswith(contract.store.state + "/profiles")
        for fields in [
            {
                "path": entry.path,
                "symlink": entry.symlink,
                "mode": entry.mode,
                "source": None if entry.source is None else os.fspath(entry.source),
            }
        ]
    ]
    root.append({"path": f"/etc/systemd/system/serial-getty@{contract.boot.console}.service", "symlink": "/dev/null"})
    return Content(
        userland=userland,
        userland_name=spec.store.paths[0].split("-", 1)[1],
        system=system,
        kernel=spec.esp[contract.boot.kernel],
        initrd=spec.esp[contract.boot.initrd],
        loader=spec.esp[contract.boot.loader],
        root=root,
        params=[word for word in options if not word.startswith(("init=", "console=")) and word not in own],
    )


def main(directory: Path) -> None:
    """Make everything in `directory`, which must not be there."""
    directory.mkdir(parents=True)
    directory = directory.absolute()
    toolbox, contract = tools.find(), contracts.default()
    write_nix(directory, toolbox)
    work = directory / "work"
    work.mkdir()
    spec = reference.describe(contract, Modules(), work, toolbox, cache_dir())
    write_flake(directory / "flake", from_reference(spec, contract), "debian")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
