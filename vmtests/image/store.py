"""A real Nix store on the building machine: paths are added by nix-store(1), and registrations are read from it."""

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vmtests.errors import HostError
from vmtests.host.tools import Toolbox
from vmtests.sizes import whole


@dataclass(frozen=True, slots=True, kw_only=True)
class NixStore:
    """A Nix store below `root`, whose paths are named `/nix/store/…` but stand in `directory`."""

    root: Path
    toolbox: Toolbox

    @property
    def directory(self) -> Path:
        """Where the store paths are."""
        return self.root / "nix/store"

    def _run(self, *args: str | os.PathLike[str]) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        empty = self.root / "conf"
        empty.mkdir(exist_ok=True)
        return self.toolbox.run(
            "nix-store",
            *("--store", self.root, "--option", "build-users-group", ""),
            *args,
            env={"NIX_CONF_DIR": os.fspath(empty), "HOME": os.fspath(empty)},
        )

    def add(self, source: Path) -> str:
        """Add a file or tree under its own name and return its store path; what is there already is not copied."""
        return self._run("--add", source).strip()

    def add_once(self, key: str, source: Path) -> str:
        """Add `source`, removing it afterwards, and remember the path under `key`."""
        path = self.add(source)
        with FileLock(self.root / "keys.lock"):
            keys = self.root / "keys"
            keys.mkdir(exist_ok=True)
            partial = keys / f"{key}.partial"
            partial.write_text(path)
            partial.replace(keys / key)
        shutil.rmtree(source)
        return path

    def known(self, key: str) -> str | None:
        """Return the store path that was remembered under `key`, if it is still there and valid."""
        remembered = self.root / "keys" / key
        if not remembered.is_file():
            return None
        path = remembered.read_text()
        return path if (self.directory / path.rsplit("/", 1)[-1]).exists() else None

    def registration(self, paths: Sequence[str], references: Mapping[str, Sequence[str]]) -> str:
        """Return what `nix-store --load-db` reads about `paths`, with the given references."""
        found: dict[str, list[str]] = {}
        for path, digest, size, deriver, _, *known in records(self._run("--dump-db", *paths)):
            wanted = sorted({*known, *references.get(path, ())})
            found[path] = [path, digest, size, deriver, str(len(wanted)), *wanted]
        if unknown := set(paths) - set(found):
            raise HostError(f"the Nix store at {self.root} does not know {min(unknown)}", hint="remove that directory")
        return as_text(found.values())


def records(text: str) -> Iterator[list[str]]:
    """Give each record of a registration; raises ValueError for what is none.

    A record is: path, hash, size of the NAR in bytes, deriver (or empty), number of references, references; one per
    line (nix-store(1), --dump-db).
    """
    lines = iter(text.splitlines())
    for path in lines:
        if not path:
            continue
        record = [path, *itertools.islice(lines, 4)]
        count = whole(record[-1])
        if len(record) < 5 or count is None or not path.startswith("/"):
            raise ValueError(path)
        record += itertools.islice(lines, count)
        if len(record) != 5 + count:
            raise ValueError(path)
        yield record


def as_text(found: Iterable[Sequence[str]]) -> str:
    """Return a registration of records."""
    return "".join(f"{line}\n" for record in found for line in record)
