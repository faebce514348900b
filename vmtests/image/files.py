"""Files of a file system that is not mounted, whatever its kind."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class FilesError(Exception):
    """A file system that cannot be read; the message says why, escaped."""


class Files(Protocol):
    """The files of a file system; paths are absolute in it. Every method raises FilesError."""

    def find(self, path: str) -> str | None:
        """Return a file's or directory's real path; None where there is none."""

    def directory(self, path: str) -> bool:
        """Whether there is a directory at a path."""

    def below(self, directory: str, suffix: str) -> list[str]:
        """Return the files directly in `directory` whose names end with `suffix` in any case, sorted."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file, fewer where it is shorter."""

    def pick(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, size in bytes) of a file; one beyond its end is short."""

    def chunks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range of a file, piece by piece."""
