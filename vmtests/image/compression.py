"""How the store is compressed: one line of text, in image.json as on the command line.

none
ALGORITHM[,level=N][,cluster=SIZE][,dedupe][,fragments][,workers=N]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmtests.errors import InputError
from vmtests.sizes import KIB, MIB, parse_size, whole
from vmtests.text import printable

_LEVELS: Mapping[str, Sequence[int]] = {
    "lz4": (),
    "lz4hc": range(13),
    "deflate": range(1, 10),
    "libdeflate": range(13),
    "zstd": range(23),
    "lzma": (*range(10), *range(100, 110)),
}
"""The levels that mkfs.erofs(1) takes of each algorithm."""

_HINT = f"none, or one of {', '.join(_LEVELS)}[,level=N][,cluster=SIZE][,dedupe][,fragments][,workers=N]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """What mkfs.erofs(1) is told: `cluster` is the size of a physical cluster in bytes (`-C`)."""

    algorithm: str = "none"
    level: int | None = None
    cluster: int | None = None
    dedupe: bool = False
    fragments: bool = False
    workers: int | None = None

    @property
    def on(self) -> bool:
        """Whether anything is compressed."""
        return self.algorithm != "none"

    def arguments(self) -> list[str]:
        """Return the arguments of mkfs.erofs."""
        # A tail in the inode is held in memory up to the end, about 2 kB for each file (docs/decisions).
        extended = ["noinline_data"]
        if not self.on:
            return [f"-E{extended[0]}"]
        level = "" if self.level is None else f",level={self.level}"
        extended += [name for name in ("dedupe", "fragments") if getattr(self, name)]
        return [
            f"-z{self.algorithm}{level}",
            f"-E{','.join(extended)}",
            *([] if self.cluster is None else [f"-C{self.cluster}"]),
            *([] if self.workers is None else [f"--workers={self.workers}"]),
        ]


def parse(text: str) -> Compression:
    """Read the line; raises InputError that names the word at fault. `lz4hc,9` is `lz4hc,level=9`."""
    algorithm, *words = text.split(",")
    if algorithm == "none" and not words:
        return Compression()
    if algorithm not in _LEVELS:
        raise InputError(f"unknown compression {text!r}", hint=_HINT)
    level = cluster = workers = None
    flags = {"dedupe": False, "fragments": False}
    for word in words:
        name, _, value = word.partition("=")
        if name in flags and not value:
            flags[name] = True
        elif name == "cluster" and value:
            cluster = _cluster(value)
        elif name == "workers" and (number := whole(value)):
            workers = number
        elif (number := whole(value if name == "level" else word)) in _LEVELS[algorithm]:
            level = number
        else:
            raise InputError(f"{printable(word)!r} is no option of the compression {algorithm}", hint=_HINT)
    return Compression(
        algorithm=algorithm, level=level, cluster=cluster, dedupe=flags["dedupe"], fragments=flags["fragments"],
        workers=workers,
    )  # fmt: skip


def _cluster(value: str) -> int:
    size = parse_size(value)
    if size & (size - 1) or not 4 * KIB <= size <= MIB:
        raise InputError(f"a cluster of {value} is not possible", hint="a power of two from 4K to 1M")
    return size
