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
from pathlib import Path

from filelock import FileLock, Timeout

from vmtests.contract import Contract
from vmtests.errors import from_os
from vmtests.host.scratch import remove
from vmtests.host.tools import Toolbox
from vmtests.image import assemble, reference, spec
from vmtests.image.reference import Modules
from vmtests.resources import cache_dir

KEEP = 6
"""Images of the cache that are kept; the least recently used go first."""

_BUILDER = ("assemble.py", "initrd.py", "reference.py", "repart.py", "spec.py", "store.py")


def key(contract: Contract, modules: Modules, toolbox: Toolbox) -> str:
    """Return the digest of everything that decides the bytes of a reference image."""
    digest = hashlib.sha256()
    for part in (repr(contract), str(modules), reference.fingerprint()):
        digest.update(part.encode() + b"\0")
    for name in ("mkfs.erofs", "mkfs.ext4", "mkfs.vfat", "systemd-repart", "nix-store"):
        digest.update(f"{name} {toolbox.tools[name].version}\0".encode())
    for name in _BUILDER:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:20]


def reference_image(contract: Contract, modules: Modules, toolbox: Toolbox) -> Path:
    """Return the reference image as a raw disk in the cache, built now unless it is there.

    Nothing may write to it: machines work on overlays. Raises HostError when it cannot be built.
    """
    images = cache_dir() / "images"
    place = images / f"reference{'+' if str(modules) else ''}{modules}-{key(contract, modules, toolbox)}"
    disk = place / "disk.raw"
    images.mkdir(parents=True, exist_ok=True)
    with FileLock(images / f"{place.name}.lock"):
        if not disk.exists():
            _build(place, contract, modules, toolbox)
        os.utime(place)
    _prune(images, place)
    return disk


def _build(place: Path, contract: Contract, modules: Modules, toolbox: Toolbox) -> None:
    # What a killed build left: only its own, since the lock is held.
    for leftover in place.parent.glob(f".{place.name}.*"):
        remove(leftover)
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        described = reference.describe(contract, modules, scratch, toolbox, cache_dir())
        image_json = scratch / "image.json"
        image_json.write_bytes(spec.to_json(described))
        # Through the same door as everybody: what is built is what the file says.
        whole = scratch / "image"
        whole.mkdir()
        assemble.assemble(spec.load(image_json), whole / "disk.raw", toolbox)
        system_map = next(described.esp[contract.boot.kernel].parent.glob("System.map-*"), None)
        if system_map is not None:
            shutil.copy2(system_map, whole / "System.map")
        whole.rename(place)
    except OSError as error:
        raise from_os("the image cannot be built", error) from error
    finally:
        remove(scratch)


def _prune(images: Path, keep: Path) -> None:
    entries = [entry for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    for entry in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP:]:
        if entry == keep:
            continue
        # One that is being built or fetched just now is in use.
        with contextlib.suppress(Timeout), FileLock(images / f"{entry.name}.lock", timeout=0):
            remove(entry)
