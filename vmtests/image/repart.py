"""Partition definitions for systemd-repart, rendered from the contract (repart.d(5))."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from vmtests.contract import Contract, Partition
from vmtests.errors import InputError
from vmtests.sizes import KIB, MIB, round_up
from vmtests.text import printable

GRAIN = 4 * KIB
"""What places and sizes of partitions are multiples of."""

_LEAST = {"ext4": 32 * MIB, "btrfs": 256 * MIB, "xfs": 300 * MIB}  # minimal_size_by_fs_name() of systemd 257


def partition_uuid(seed: str, partition: Partition) -> uuid.UUID:
    """Return the unique GUID of a partition that follows from the image's seed."""
    return uuid.uuid5(uuid.UUID(seed), partition.name)


def least_size(partition: Partition) -> int:
    """Return the size that a partition has at least, as repart has it: whole blocks, enough for its file system."""
    return round_up(max(partition.size_bytes or 0, _LEAST.get(partition.filesystem, 0)), GRAIN)


def definition(partition: Partition, seed: str, content: Mapping[str, str]) -> str:
    """Return one definition file, of a partition whose size is settled.

    `content` gives its `CopyFiles=` (target to source) or `CopyBlocks=` lines.
    """
    blocks, identifier = content.get("CopyBlocks"), partition_uuid(seed, partition)
    in_place = partition.name == "store" and blocks is None
    lines = [
        "[Partition]",
        # What is there already has a type of its own (`assemble`).
        f"Type={identifier if in_place else uuid.UUID(partition.type_uuid)}",
        f"Label={partition.label.replace('%', '%%')}",
        f"UUID={identifier}",
    ]
    if blocks is not None:
        lines.append(f"CopyBlocks={blocks}")
    elif not in_place:
        if partition.filesystem:
            lines.append(f"Format={partition.filesystem}")
        lines += [f"CopyFiles={_escape(source)}:{_escape(target)}" for target, source in content.items()]
    lines += [f"SizeMinBytes={least_size(partition)}", f"SizeMaxBytes={least_size(partition)}"]
    return "\n".join(lines) + "\n"


def _escape(path: str) -> str:
    """Return a path as part of `CopyFiles=`, which knows specifiers and C escapes, and splits at colons.

    Raises InputError for one that no line of a definition can hold: systemd-repart leaves out what it cannot read.
    """
    if "\n" in path or not _is_utf_8(path):
        raise InputError(f"systemd-repart takes no path like {printable(path)}", hint="give it another name")
    return path.replace("\\", "\\\\").replace("%", "%%").replace(":", "\\x3a").replace(" ", "\\x20")


def _is_utf_8(path: str) -> bool:
    return os.fsencode(path).decode("utf-8", "replace") == path


def write_definitions(
    directory: Path, contract: Contract, seed: str, content: Mapping[str, Mapping[str, str]]
) -> None:
    """Write a definition for every partition of the contract, in its order; `content` is by partition name."""
    directory.mkdir(parents=True)
    for index, partition in enumerate(contract.partition, start=1):
        text = definition(partition, seed, content.get(partition.name, {}))
        (directory / f"{index:03}.conf").write_text(text, encoding="utf-8")
