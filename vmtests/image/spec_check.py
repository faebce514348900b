"""What an image.json has to keep before a byte is written: each breach is one sentence with the place in the file."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.sizes import format_size, round_up

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


def check_esp(files: Mapping[str, Path], contract: Contract, origin: str) -> None:
    """Raise InputError for files of the ESP that are missing, cannot be named so on FAT, or have no room there."""
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
