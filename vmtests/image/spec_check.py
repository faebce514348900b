"""What an image.json has to keep before a byte is written: each breach is one sentence with the place in the file."""

import dataclasses
import difflib
import typing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.image import compression
from vmtests.sizes import format_size, round_up

if TYPE_CHECKING:
    from vmtests.image.spec import ImageSpec, RootEntry

_SECTOR = 512  # bytes; the ESP has clusters of one sector
_FAT_ENTRY = 8  # bytes of a cluster in the two tables
_FAT_RESERVED = 64 * _SECTOR  # the boot sector and its like
_FAT_NAME = 255  # characters
_FAT_FORBIDDEN = set('"*:<>?\\|') | {chr(number) for number in range(32)}
_LFN = 13  # characters of a long name in one directory entry of 32 bytes


def refuse_unknown(data: object, kind: object, origin: str, place: str = "") -> None:
    """Raise InputError for a key that the dataclass `kind` does not have, at any depth of parsed JSON."""
    arguments = typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(data, dict):
        hints = typing.get_type_hints(kind)
        for key, value in data.items():
            if key not in hints:
                near = difflib.get_close_matches(str(key), hints, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(hints)}"
                raise InputError(f"{origin}: unknown key {place}{key}", hint=hint)
            refuse_unknown(value, hints[key], origin, f"{place}{key}.")
    elif isinstance(data, list) and arguments:
        for index, value in enumerate(data):
            refuse_unknown(value, arguments[0], origin, f"{place[:-1]}[{index}].")
    elif isinstance(data, dict):
        for argument in arguments:
            if dataclasses.is_dataclass(argument):
                refuse_unknown(data, argument, origin, place)


def check(spec: "ImageSpec", origin: str) -> None:
    """Raise InputError when the spec names what does not exist, contradicts itself, or cannot be built."""
    contract = spec.image_contract()
    try:
        uuid.UUID(spec.seed)
    except ValueError as error:
        raise InputError(f"{origin}: seed {spec.seed!r} is not a UUID") from error
    try:
        compression.parse(spec.compression)
    except InputError as error:
        raise InputError(f"{origin}: compression: {error.message}", hint=error.hint) from error
    _check_esp(spec.esp, contract, origin)
    _check_store(spec, contract, origin)
    if spec.registration is not None and not spec.registration.is_file():
        raise InputError(f"{origin}: registration {spec.registration} is not a file")
    if spec.state is not None:
        _check_path(spec.state, "state", origin)
    for index, entry in enumerate(spec.root):
        _check_entry(entry, f"root[{index}]", origin)
        _check_room(spec.root, index, origin)


def _check_esp(files: Mapping[str, Path], contract: Contract, origin: str) -> None:
    seen: dict[str, str] = {}
    parents: dict[str, set[str]] = {}
    need = 0
    for target, source in files.items():
        place = f"esp[{target!r}]"
        if not target.startswith("/"):
            raise InputError(f"{origin}: ESP path {target!r} is not absolute")
        parts = target.split("/")[1:]
        if any(part in {"", ".", ".."} or len(part) > _FAT_NAME or _FAT_FORBIDDEN & set(part) for part in parts):
            raise InputError(f"{origin}: {place} is no name that FAT takes")
        if not source.is_file():
            raise InputError(f"{origin}: {source}, to be {target} on the ESP, is not a file")
        # FAT does not tell upper from lower case.
        if (folded := target.casefold()) in seen:
            raise InputError(f"{origin}: {place} is the same file as esp[{seen[folded]!r}] on FAT")
        seen[folded] = target
        need += round_up(source.stat().st_size, _SECTOR)
        for depth, part in enumerate(parts):
            parents.setdefault("/".join(parts[:depth]).casefold(), set()).add(part.casefold())
    for target in seen:
        if target[1:] in parents:
            raise InputError(f"{origin}: esp[{seen[target]!r}] is a file, and other files of the ESP are below it")
    need += sum(
        round_up(32 * (2 + sum(1 + -(-len(name) // _LFN) for name in names)), _SECTOR) for names in parents.values()
    )
    size = contract.esp.size_bytes or 0
    room = (size - _FAT_RESERVED) * _SECTOR // (_SECTOR + _FAT_ENTRY)
    if need > room:
        raise InputError(
            f"{origin}: esp needs {format_size(need)}, and the ESP of {format_size(size)} has room for"
            f" {format_size(max(room, 0))}",
            hint="give the contract's partition esp a larger size, or put fewer or smaller files on it",
        )


def _check_store(spec: "ImageSpec", contract: Contract, origin: str) -> None:
    if not spec.store.paths:
        raise InputError(f"{origin}: the store has no paths", hint="an image without a store cannot boot")
    prefix = contract.store.mount + "/"
    for index, path in enumerate(spec.store.paths):
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or not name or "/" in name or name.startswith("."):
            raise InputError(
                f"{origin}: store path {index + 1}, {path!r}, is not a path directly below {contract.store.mount}"
            )
        if not (source := spec.store.source(path)).exists() and not source.is_symlink():
            raise InputError(f"{origin}: store path {index + 1}, {source}, does not exist")


def _check_path(path: str, place: str, origin: str) -> None:
    parts = Path(path).parts
    if not path.startswith("/") or ".." in parts or len(parts) < 2:
        raise InputError(f"{origin}: {place} {path!r} is not an absolute path below /")


def _check_entry(entry: "RootEntry", place: str, origin: str) -> None:
    _check_path(entry.path, f"{place}.path", origin)
    if entry.source is not None and entry.symlink is not None:
        raise InputError(f"{origin}: {place}, {entry.path}, has both a source and a symlink")
    if entry.source is not None and not entry.source.exists():
        raise InputError(f"{origin}: {place}.source {entry.source}, to be {entry.path}, does not exist")
    if entry.source is not None and not (entry.source.is_file() or entry.source.is_dir()):
        raise InputError(f"{origin}: {place}.source {entry.source} is neither a file nor a directory")
    if entry.mode is not None and (not entry.mode or set(entry.mode) - set("01234567") or len(entry.mode) > 4):
        raise InputError(f"{origin}: {place}.mode {entry.mode!r} of {entry.path} is not octal")


def _check_room(entries: Sequence["RootEntry"], index: int, origin: str) -> None:
    """Raise InputError when entry `index` is in the way of an earlier one, or would be written through a symlink."""
    entry = entries[index]
    path = Path(entry.path)
    for number, kind, what in _found(entries[:index], path):
        directory = entry.symlink is None and (entry.source is None or entry.source.is_dir())
        if kind != "directory" or not directory or (entry.source is not None and entries[number].path == entry.path):
            raise InputError(f"{origin}: root[{index}].path {entry.path} is there already: {what}")
    for parent in path.parents:
        for _, kind, what in _found(entries[:index], parent):
            if kind != "directory":
                raise InputError(f"{origin}: root[{index}].path {entry.path} is below a {kind}: {what}")


def _found(entries: Sequence["RootEntry"], path: Path) -> Iterator[tuple[int, str, str]]:
    """Give what earlier entries put at `path`: the entry's number, the kind, and how to say it."""
    for number, entry in enumerate(entries):
        what = f"root[{number}] puts it there"
        if Path(entry.path) == path:
            if entry.symlink is not None:
                yield number, "symlink", what
            else:
                yield number, "file" if entry.source is not None and entry.source.is_file() else "directory", what
        elif entry.source is not None and entry.source.is_dir() and path.is_relative_to(entry.path):
            inside = entry.source / path.relative_to(entry.path)
            if inside.is_symlink():
                yield number, "symlink", f"root[{number}].source has it"
            elif inside.exists():
                yield number, "directory" if inside.is_dir() else "file", f"root[{number}].source has it"
