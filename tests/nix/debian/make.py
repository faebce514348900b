"""Builds the NixOS image of a checkout of nixpkgs, and its variants, as disks to boot.

python -m tests.nix.debian.make DIRECTORY NIXPKGS [VARIANT | GENERATION]...

What is real: every module, unit, mount, activation and the initrd's contents and order. What is not: the compiled
programs, which are Debian 13's (docs/nixos.md).
"""

import shutil
import sys
from pathlib import Path

from vmtests.errors import InputError, VmtestsError

from .builder import PROJECT, Builder, make

MODULES = PROJECT / "nix/modules"

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "debug": (f"{MODULES}/debug.nix",),
    "bloat": (f'{{ imports = [ {MODULES}/bloat.nix ]; bloat.size = "2G"; }}',),
    "overlay-store": ("{ virtualisation.googleComputeRepart.localOverlayStore = true; }",),
    "image": (),
}
"""Names of disks, and the modules that each adds to the example; `image` is nixpkgs' own builder's."""

GENERATIONS = ("second", "third")
"""Systems that differ from the example: what they add to its store, for a machine that switches to them."""

_GENERATION = """
{{ pkgs, ... }}: {{
  boot.initrd.systemd.contents."/etc/generation".text = "{name}";
  environment.etc.generation.text = "{name}";
  systemd.services.generation = {{
    wantedBy = [ "multi-user.target" ];
    restartTriggers = [ "{name}" ];
    serviceConfig = {{ Type = "oneshot"; RemainAfterExit = true; }};
    script = "echo {name} > /run/generation";
  }};
}}
"""


def build(builder: Builder, variant: str) -> Path:
    """Build a variant's disk and return its path. Raises HostError."""
    disk = builder.directory / f"{variant}.raw"
    disk.unlink(missing_ok=True)
    if variant == "image":
        [built] = builder.outside(builder.build("image")).glob("*.raw")
        shutil.copyfile(built, disk)
    else:
        builder.assemble(builder.build("imageSpec", VARIANTS[variant]), disk)
    return disk


def build_generation(builder: Builder, name: str) -> Path:
    """Build a further generation of the default system; return the archive of its store paths, beside its `.path`."""
    first = builder.build("toplevel")
    path = builder.build("toplevel", [_GENERATION.format(name=name)])
    archive = builder.directory / f"{name}.export"
    builder.export(path, first, archive)
    archive.with_suffix(".path").write_text(path)
    return archive


def main(directory: Path, nixpkgs: Path, *variants: str) -> None:
    """Build the named variants and generations, or all; raises InputError for a name that is none's."""
    known = (*VARIANTS, *GENERATIONS)
    if unknown := [name for name in variants if name not in known]:
        raise InputError(f"there is no variant {unknown[0]}", hint=f"one of {', '.join(known)}")
    builder = make(nixpkgs, directory)
    for variant in variants or known:
        print(build_generation(builder, variant) if variant in GENERATIONS else build(builder, variant))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except VmtestsError as error:
        sys.exit(f"{error}{f' ({error.hint})' if error.hint else ''}")
