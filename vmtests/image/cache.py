"""Images that were built before, found again by what they are made of.

The key of an image is a digest of the recipe, the contract, the modules, the tools and the builder's own code: when
none has changed, neither has the image. An entry is made beside its place, under a lock, and renamed: one that is
there is whole.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vmtests.contract import Contract
from vmtests.errors import from_os
from vmtests.host.scratch import remove, remove_unowned, scratch
from vmtests.host.tools import Toolbox
from vmtests.image import assemble, reference, spec
from vmtests.image.reference import Modules
from vmtests.image.spec import ImageSpec
from vmtests.image.target import publish
from vmtests.resources import cache_dir

KEEP = 6
"""Images of the cache that are kept; the least recently used go first."""


def key(contract: Contract, modules: Modules, toolbox: Toolbox) -> str:
    """Return the digest of everything that decides the bytes of a reference image."""
    digest = hashlib.sha256()
    for part in (repr(contract), str(modules), reference.fingerprint()):
        digest.update(part.encode() + b"\0")
    for name in ("mkfs.erofs", "mkfs.ext4", "mkfs.vfat", "systemd-repart", "nix-store"):
        digest.update(f"{name} {toolbox.tools[name].version}\0".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def reference_image(contract: Contract, modules: Modules, toolbox: Toolbox, keep: Callable[[Path], object]) -> Path:
    """Return the reference image as a raw disk in the cache, built now unless it is there.

    Nothing may write to it: machines work on overlays. `keep` is given the directory that is not to be removed
    (`scratch.owned`). Raises HostError when it cannot be built.
    """
    images = cache_dir() / "images"
    place = images / f"reference{'+' if str(modules) else ''}{modules}-{key(contract, modules, toolbox)}"
    disk = place / "disk.raw"
    images.mkdir(parents=True, exist_ok=True)
    with FileLock(images / f"{place.name}.lock"):
        if not disk.exists():
            _build(place, contract, modules, toolbox)
        os.utime(place)
        keep(place)
    _prune(images)
    return disk


@contextlib.contextmanager
def described(contract: Contract, modules: Modules, toolbox: Toolbox) -> Iterator[ImageSpec]:
    """Give the reference image as an image.json describes it; what it is made of is there while the block runs."""
    with scratch(cache_dir()) as directory:
        yield _describe(contract, modules, toolbox, directory)


def _describe(contract: Contract, modules: Modules, toolbox: Toolbox, directory: Path) -> ImageSpec:
    image_json = directory / "image.json"
    image_json.write_bytes(spec.to_json(reference.describe(contract, modules, directory, toolbox, cache_dir())))
    # Through the same door as everybody: what is built is what the file says.
    return spec.load(image_json)


def _build(place: Path, contract: Contract, modules: Modules, toolbox: Toolbox) -> None:
    # What a killed process left: only this image's, since the lock is held.
    for leftover in (place, *place.parent.glob(f".{place.name}.*")):
        remove(leftover)
    scratch_directory = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        described_image = _describe(contract, modules, toolbox, scratch_directory)
        # Not where it is to stay: what cannot be removed of its making (no descriptor is left) must not stay with it.
        assemble.assemble(described_image, scratch_directory / "disk.raw", toolbox)
        whole = scratch_directory / "image"
        whole.mkdir()
        publish(scratch_directory / "disk.raw", whole / "disk.raw")
        system_map = next(described_image.esp[contract.boot.kernel].parent.glob("System.map-*"), None)
        if system_map is not None:
            shutil.copy2(system_map, whole / "System.map")
        whole.rename(place)
    except OSError as error:
        raise from_os("the image cannot be built", error) from error
    finally:
        remove(scratch_directory)


def _prune(images: Path) -> None:
    """Remove the images that were used least recently, and what killed processes left of others."""
    found = [entry for entry in images.iterdir() if entry.is_dir()]
    whole = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda path: path.stat().st_mtime)
    for entry in (*whole[:-KEEP], *(entry for entry in found if entry.name.startswith("."))):
        name = entry.name[1:].rpartition(".")[0] if entry.name.startswith(".") else entry.name
        # One that is being built or fetched just now is in use, and one that a session stands on is owned.
        with contextlib.suppress(Timeout), FileLock(images / f"{name}.lock", timeout=0):
            remove_unowned(entry)
