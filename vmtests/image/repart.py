"""Partition definitions for systemd-repart, rendered from the contract (repart.d(5))."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from vmtests.contract import Contract, Partition
from vmtests.errors import InputError
from vmtests.text import printable


def partition_uuid(seed: str, partition: Partition) -> uuid.UUID:
    """Return the unique GUID of a partition that follows from the image's seed."""
    return uuid.uuid5(uuid.UUID(seed), partition.name)


def definition(partition: Partition, seed: str, content: Mapping[str, str]) -> str:
    """Return one definition file; `content` gives its `CopyFiles=` (target to source) or `CopyBlocks=` lines."""
    lines = [
        "[Partition]",
        f"Type={partition.type}",
        f"Label={partition.label}",
        f"UUID={partition_uuid(seed, partition)}",
    ]
    blocks = content.get("CopyBlocks")
    if blocks is not None:
        lines.append(f"CopyBlocks={blocks}")
        # Without a limit it takes the rest of the disk, whatever its weight.
        if (size := content.get("Size")) is not None:
            lines += [f"SizeMinBytes={size}", f"SizeMaxBytes={size}"]
    elif partition.name != "store":
        if partition.filesystem:
            lines.append(f"Format={partition.filesystem}")
        lines += [f"CopyFiles={_escape(source)}:{_escape(target)}" for target, source in content.items()]
    if partition.size_bytes is None:
        # It has the size of its content; what the disk has besides is root's.
        lines.append("Weight=0")
    else:
        lines.append(f"SizeMinBytes={partition.size_bytes}")
        if not partition.grow:
            lines.append(f"SizeMaxBytes={partition.size_bytes}")
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
        (directory / f"{index:03}-{partition.name}.conf").write_text(text)
