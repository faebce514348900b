"""What an image.json has to keep before a byte is written: each breach is one sentence with the place in the file."""

import dataclasses
import difflib
import re
import stat
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmtests.contract import Contract, Partition
from vmtests.errors import InputError
from vmtests.image.survey import Totals
from vmtests.sizes import GIB, KIB, MIB, format_size, round_up
from vmtests.text import printable

_FAT_ENTRY = 8  # bytes of a cluster in the two tables; the ESP has clusters of one sector
_FAT_RESERVED = 64  # sectors: the boot sector and its like
_FAT_CLUSTERS = 65525  # that a FAT32 has at least: firmware takes one with fewer for something else
_FAT_NAME = 255  # bytes
_FAT_FORBIDDEN = set('"*:<>?\\|') | {chr(number) for number in range(32)}
_LFN = 13  # characters of a long name in one directory entry of 32 bytes

_BUILT = {"esp": ("vfat", "FAT", 11), "store": ("erofs", "erofs", 15), "root": ("ext4", "ext4", 16)}
"""File systems that are made: their names, and the bytes of a label (mkfs.fat(8), mkfs.erofs(1), mke2fs(8))."""

_PATTERN = set("*?[")
_EXT4_BLOCK = 4 * KIB
_OWN_INODES = 12  # of an ext4: ten that are kept, lost+found and the orphan file
_EXT4_NAME = 64  # bytes of an inode's name in its directory, more or less


def mode_of(path: Path, place: str) -> int:
    """Return the mode (inode(7)) of what a path leads to, 0 where there is nothing.

    Raises InputError, which names `place`, where the host does not tell: a name too long, a closed directory.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last is a NUL in it
        return 0
    except OSError as error:
        raise InputError(f"{place}: {printable(str(path))}: {error.strerror}") from error


def refuse_unknown(data: object, kind: object, origin: str, place: str = "") -> None:
    """Raise InputError for a key that the dataclass `kind` does not have, at any depth of parsed JSON."""
    arguments = typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(data, dict):
        hints = typing.get_type_hints(kind)
        for key, value in data.items():
            if key not in hints:
                near = difflib.get_close_matches(str(key), hints, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(hints)}"
                raise InputError(f"{origin}: unknown key {place}{printable(key)}", hint=hint)
            refuse_unknown(value, hints[key], origin, f"{place}{key}.")
    elif isinstance(data, list) and arguments:
        for index, value in enumerate(data):
            refuse_unknown(value, arguments[0], origin, f"{place[:-1]}[{index}].")
    elif isinstance(data, dict):
        for argument in arguments:
            if dataclasses.is_dataclass(argument):
                refuse_unknown(data, argument, origin, place)


def _is_fat_name(name: str) -> bool:
    """Whether a file of the ESP can have this name: FAT drops dots and blanks at its end; mcopy(1) counts bytes."""
    fits = 0 < len(name.encode()) <= _FAT_NAME
    return fits and name == name.rstrip(". ") and not _FAT_FORBIDDEN & set(name)


def check_esp(files: Mapping[str, Path], contract: Contract, origin: str) -> None:
    """Raise InputError for files of the ESP that are missing, cannot be named so on FAT, or have no room there."""
    seen: dict[str, str] = {}
    parents: dict[str, set[str]] = {}
    need, sector = 0, contract.disk.sector_size
    for target, source in files.items():
        place = f"esp[{target!r}]"
        if not target.startswith("/"):
            raise InputError(f"{origin}: {place}: the path is not absolute")
        parts = target.split("/")[1:]
        if not all(map(_is_fat_name, parts)):
            raise InputError(f"{origin}: {place}: FAT does not take this name")
        if not stat.S_ISREG(mode_of(source, f"{origin}: {place}")):
            raise InputError(f"{origin}: {place}: {source} is not a file")
        # FAT does not tell upper from lower case.
        if (folded := target.casefold()) in seen:
            raise InputError(f"{origin}: {place}: on FAT it is the same file as esp[{seen[folded]!r}]")
        seen[folded] = target
        need += round_up(source.stat().st_size, sector)
        for depth, part in enumerate(parts):
            parents.setdefault("/".join(parts[:depth]).casefold(), set()).add(part.casefold())
    for target in seen:
        if target[1:] in parents:
            raise InputError(f"{origin}: esp[{seen[target]!r}]: other files of the ESP are below it")
    need += sum(
        round_up(32 * (2 + sum(1 + -(-len(name) // _LFN) for name in names)), sector) for names in parents.values()
    )
    size = contract.esp.size_bytes or 0
    room = (size - _FAT_RESERVED * sector) * sector // (sector + _FAT_ENTRY)
    if room < _FAT_CLUSTERS * sector:
        least = _FAT_CLUSTERS * (sector + _FAT_ENTRY) + _FAT_RESERVED * sector
        raise InputError(
            f"{origin}: esp: FAT32 with sectors of {sector} bytes needs {format_size(least)}, and the ESP has"
            f" {format_size(size)}",
            hint="give the contract's partition esp a larger size",
        )
    if need > room:
        raise InputError(
            f"{origin}: esp: it needs {format_size(need)}, and the ESP of {format_size(size)} has room for"
            f" {format_size(max(room, 0))}",
            hint="give the contract's partition esp a larger size, or put fewer or smaller files on it",
        )


def check_places(entries: Sequence[tuple[str, Path | None, bool]], origin: str) -> None:
    """Raise InputError for an entry of the root that is there already, or below a symlink or a file.

    An entry is its path, its source, and whether it is a symlink. What is put below a symlink lands where that leads,
    on the host that builds.
    """
    seen: dict[Path, int] = {}
    above: dict[Path, int] = {}
    for index, (path, source, symlink) in enumerate(entries):
        place, target = f"{origin}: root[{index}].path", Path(path)
        leaf = symlink or (source is not None and not source.is_dir())
        if (earlier := seen.setdefault(target, index)) != index and (symlink or source is not None):
            raise InputError(f"{place}: {path} is there already: root[{earlier}] puts it there")
        if leaf and target in above:
            raise InputError(f"{place}: {path} is there already: root[{above[target]}] is below it")
        for parent in target.parents:
            above.setdefault(parent, index)
            if (owner := seen.get(parent)) is None:
                continue
            _, tree, linked = entries[owner]
            inside = target.relative_to(parent).parts
            within = [tree.joinpath(*inside[:depth]) for depth in range(len(inside))] if tree else []
            if linked or any(part.is_file() or (depth and part.is_symlink()) for depth, part in enumerate(within)):
                raise InputError(f"{place}: {path} is below a symlink or a file: root[{owner}] puts it there")


def check_contract(contract: Contract, place: str) -> None:
    """Raise InputError for a contract that a disk can be held to, but none can be built to."""
    if missing := _BUILT.keys() - {partition.name for partition in contract.partition}:
        raise InputError(
            f"{place}: no partition is called {' or '.join(sorted(missing))}",
            hint="an image is built with partitions called esp, store and root; others may be added",
        )
    for index, partition in enumerate(contract.partition):
        key = f"{place}.partition[{index}]"
        kind, name, limit = _BUILT.get(partition.name, (partition.filesystem, partition.filesystem, 0))
        if partition.filesystem != kind:
            raise InputError(f"{key}.filesystem: {partition.name} is built as {kind}, not as {partition.filesystem}")
        if not re.fullmatch(r"\w*", kind):
            raise InputError(f"{key}.filesystem: {kind!r} is no name of a file system")
        _check_label(partition, key, name, limit)
        if partition.copies > 1 or partition.verity:
            word = "verity" if partition.verity else "copies"
            raise InputError(f"{key}.{word}: such a partition can be checked, but not built")
        if partition.size is None and partition.name != "store":
            raise InputError(f"{key}.size: {partition.name} needs one", hint="only the store has that of its content")
    if not contract.store.mount:
        raise InputError(f"{place}.store: there is none", hint="what is built has one: fixtures/contract.toml")


def _check_label(partition: Partition, key: str, name: str, limit: int) -> None:
    label = partition.label
    # Repart's definitions have one on a line, without blanks around it; a backslash at its end takes the next line.
    if not label or _PATTERN & set(label) or not label.isprintable() or label != label.strip(" ").rstrip("\\"):
        raise InputError(f"{key}.label: {label!r} is no label that one partition can have")
    if limit and (length := len(label.encode(errors="replace"))) > limit:
        text = f"{key}.label: {label!r} has {length} bytes, and a label of {name} {limit} at most"
        raise InputError(text, hint="the file system is labelled as its partition is")


def check_root(root: Totals, database: int, contract: Contract, place: str) -> None:
    """Raise InputError when the root partition has no room for `root` and a Nix database of `database` bytes."""
    size = contract.root.size_bytes or 0
    room, inodes = _ext4_room(size)
    need = root.blocks + root.directories * _EXT4_BLOCK + root.inodes * _EXT4_NAME + database
    if need > room or root.inodes > inodes:
        what = f"{format_size(need)} in {root.inodes} inodes"
        raise InputError(
            f"{place}: root: it needs {what}, and the root partition of {format_size(size)} has room for"
            f" {format_size(max(room, 0))} in {inodes}",
            hint="give the contract's partition root a larger size, or put less on it",
        )


def _ext4_room(size: int) -> tuple[int, int]:
    """Return the bytes and inodes that an ext4 of `size` bytes leaves as systemd-repart makes it.

    It has mke2fs.conf(5)'s type `default`, blocks of 4 KiB and no reserve (mkfs-util.c of systemd 257); the journal
    is that of ext2fs_default_journal_size() of e2fsprogs 1.47.
    """
    inodes = size // (16 * KIB)
    steps = ((128 * MIB, 4), (GIB, 16), (2 * GIB, 32), (16 * GIB, 64), (32 * GIB, 128), (64 * GIB, 256))
    journal = next((mebibytes for below, mebibytes in steps if size < below), 1024) * MIB
    return size - inodes * 256 - journal - MIB // 2 - size // 200, inodes - _OWN_INODES
