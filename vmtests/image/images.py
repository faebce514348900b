"""Images by the names that people give them: the reference image, a flake's, or somebody's own disk."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.host import Host
from vmtests.image import cache, nix
from vmtests.image.image import Image
from vmtests.image.inspect import inspect
from vmtests.image.reference import Modules
from vmtests.image.source import adopt


class Images:
    """Finds, builds and inspects images; those that are built or unpacked are shared by all processes of a run.

    Without a contract the reference image is held to the project's own, and somebody's image only where it has that
    layout.
    """

    def __init__(self, contract: Contract | None, host: Host) -> None:
        self._given = contract
        self._host = host

    def find(
        self,
        name: str | Path = "reference",
        modules: Sequence[str] = (),
        *,
        contract: Contract | None = None,
        direct: bool = False,
    ) -> Image:
        """Return an image by name: `reference`, built unless it is in the cache; `nix[:FLAKE#ATTR]`; or a disk's path.

        It is held to `contract`, if that is given. `direct` is for `Hardware.kernel`: what starts without the image's
        boot loader may have none, nor a partition table. The module `debug` is handed to the guest of an image that is
        built already. Raises InputError for what is no image, HostError when it cannot be built.
        """
        name = str(name)
        parsed, toolbox = Modules.parse(modules), self._host.toolbox
        if name == "reference":
            # It is built to what we promise; it may be held to what somebody else does.
            path = cache.reference_image(contracts.default(), parsed, toolbox, self._host.keep)
            shown, own = f"reference{'+' if str(parsed) else ''}{parsed}", parsed
            archive = None
        else:
            installable = nix.parse(name)
            if parsed.bloat:
                way = "a configuration imports nixosModules.bloat" if installable else "only debug can be handed to it"
                raise InputError(f"the module bloat is built into the reference image; {name} is another", hint=way)
            shown, own = installable or Path(name).name, None
            path, archive = self._adopted(name, installable)
        return Image(
            name=shown,
            path=path.absolute(),  # who boots it later may be in another working directory
            modules=own,
            inspection=inspect(
                path,
                contract or self._given or (None if own is None else contracts.default()),
                toolbox,
                direct=direct,
            ),
            archive=archive,
            debug=own is None and parsed.debug,
        )

    def _adopted(self, name: str, installable: str | None) -> tuple[Path, Path | None]:
        """Return somebody's own disk, built or unpacked once for all processes of the run, and its archive."""
        scratch = self._host.scratch
        with FileLock(scratch / "adopted.lock"):
            known = [name, *(_state(Path(name)) if installable is None else ())]
            note = scratch / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:20]}.path"
            if note.exists():
                path, _, archive = note.read_text().partition("\0")
                return Path(path), Path(archive) if archive else None
            given = Path(name) if installable is None else nix.build(installable, scratch)
            found = adopt(given, scratch, self._host.toolbox)
            note.write_text(f"{found.path}\0{found.archive or ''}")
            return found.path, found.archive

    def forget(self) -> None:
        """Have what a flake describes built again the next time: it may have changed."""
        for note in self._host.scratch.glob("*.path"):
            note.unlink(missing_ok=True)


def _state(path: Path) -> Iterator[tuple[int, ...]]:
    """Yield what changes when somebody replaces a file, or one in a directory; nothing where it cannot be seen."""
    with contextlib.suppress(OSError):
        for one in [path, *(sorted(path.iterdir()) if path.is_dir() else ())]:
            facts = one.stat()
            yield facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
