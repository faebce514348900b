"""Builds the NixOS image of a checkout of nixpkgs, and its variants, as disks to boot.

python -m tests.nix.debian.make DIRECTORY NIXPKGS [VARIANT]...

What is real: every module, unit, mount, activation and the initrd's contents and order. What is not: the compiled
programs, which are Debian 13's (docs/nixos.md).
"""

import shutil
import sys
from pathlib import Path

from vmtests.errors import VmtestsError

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


def main(directory: Path, nixpkgs: Path, *variants: str) -> None:
    """Build the named variants, or all."""
    builder = make(nixpkgs, directory)
    for variant in variants or VARIANTS:
        print(build(builder, variant))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except VmtestsError as error:
        sys.exit(f"{error}{f' ({error.hint})' if error.hint else ''}")
