"""Small disks that obey the contract, to be broken and inspected; and what is on them, made of nothing."""

import gzip
import os
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.host import tools
from vmtests.host.copies import copy_disk
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import gpt
from vmtests.image.assemble import assemble
from vmtests.image.inspect import Inspection, inspect
from vmtests.image.spec import ImageSpec, StoreSpec
from vmtests.sizes import MIB

STORE_PATH = "/nix/store/00000000000000000000000000000000-system"
ENTRY = f"""# made by a test
title\tTest image
version 1
linux /EFI/nixos/kernel.efi
initrd /EFI/nixos/initrd.efi
options init={STORE_PATH}/init
options root=fstab console=tty0 console=ttyS0,115200n8
"""


class MemoryDisk:
    """A disk in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, shorter at the end."""
        return bytes(self.content[offset : offset + length])


def program(
    *,
    machine: int = 0x8664,
    subsystem: int = 10,
    magic: int = 0x20B,
    sections: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return a PE program with its headers at 0x40, and sections from 0x400 on; one that returns, if none is named."""
    parts = {".text": b"\xc3"} if sections is None else dict(sections)
    head = bytearray(0x400)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x40)
    struct.pack_into("<4sHHIIIHH", head, 0x40, b"PE\0\0", machine, len(parts), 0, 0, 0, 112, 0)
    struct.pack_into("<H", head, 0x58, magic)
    struct.pack_into("<H", head, 0x58 + 68, subsystem)
    body = bytearray()
    for index, (name, data) in enumerate(parts.items()):
        place = 0x40 + 24 + 112 + 40 * index
        struct.pack_into("<8sIIII", head, place, name.encode(), len(data), 0, len(data), 0x400 + len(body))
        body += data
    return bytes(head + body)


def kernel(release: str = "6.12.1-test") -> bytes:
    """Return the beginning of a bzImage: as much of one as is checked."""
    image = bytearray(program()) + bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020F)
    struct.pack_into("<H", image, 0x20E, 0x600)
    text = f"{release} (somebody@somewhere) #1".encode()
    image[0x800 : 0x800 + len(text)] = text
    return bytes(image)


def entry(kind: uuid.UUID, first: int, last: int, label: str, unique: int = 0) -> bytes:
    """Return a partition entry of 128 bytes."""
    name = label.encode("utf-16-le", errors="surrogatepass").ljust(72, b"\0")[:72]
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, uuid.UUID(int=unique or first).bytes_le, first, last, 0, name)


def seal(disk: bytearray, entries: bytes, *, size: int = 512, sectors: int | None = None) -> None:
    """Write a protective MBR and both copies of a table with these entries into `disk`."""
    sectors = sectors or len(disk) // size
    array = entries.ljust(128 * 128, b"\0")
    blocks = -(-len(array) // size)
    disk[446:462] = struct.pack("<B3sB3sII", 0, bytes(3), 0xEE, bytes(3), 1, sectors - 1)
    disk[510:512] = b"\x55\xaa"
    for my, other, place in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - blocks)):
        fields = (my, other, 2 + blocks, sectors - 2 - blocks, bytes(range(16)), place, 128, 128)
        body = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields, zlib.crc32(array))
        header = body[:16] + struct.pack("<I", zlib.crc32(body)) + body[20:]
        disk[my * size : my * size + 92] = header
        disk[place * size : place * size + len(array)] = array


def table(entries: Sequence[bytes], *, sectors: int = 4096, size: int = 512) -> MemoryDisk:
    """Return a disk in memory with a good table."""
    disk = MemoryDisk(bytes(sectors * size))
    seal(disk.content, b"".join(entries), size=size)
    return disk


class SmallImage:
    """A small raw disk that can be broken, and inspected in a tenth of a second.

    `contract` is what it has to obey. Offsets and sizes are in bytes; partitions are numbered from 1.
    """

    def __init__(self, path: Path, contract: Contract, toolbox: Toolbox) -> None:
        self.path = path
        self.contract = contract
        self.toolbox = toolbox

    def copy(self, target: Path) -> "SmallImage":
        """Copy it to a file, without its holes, and return the copy."""
        copy_disk(self.path, target)
        return SmallImage(target, self.contract, self.toolbox)

    @property
    def size(self) -> int:
        """The size of the disk in bytes."""
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return a range of the disk."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Write over a range of the disk."""
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    def start(self, number: int) -> int:
        """Return the first byte of a partition."""
        return int.from_bytes(self.read(1024 + 128 * (number - 1) + 32, 8), "little") * 512

    def edit_entry(self, number: int, offset: int, data: bytes) -> None:
        """Change bytes of a partition entry in both copies, with right checksums."""
        array = bytearray(self.read(1024, 128 * 128))
        place = 128 * (number - 1) + offset
        array[place : place + len(data)] = data
        self.write_entries(bytes(array))

    def write_entries(self, array: bytes) -> None:
        """Write both copies of the array and of the headers anew."""
        last = self.size // 512 - 1
        for header_place, array_place in ((512, 1024), (last * 512, (last - 32) * 512)):
            self.write(array_place, array)
            header = bytearray(self.read(header_place, 92))
            struct.pack_into("<I", header, 88, zlib.crc32(array))
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(header))
            self.write(header_place, bytes(header))

    def mtool(self, name: str, *args: str) -> None:
        """Run one of mtools on the ESP."""
        run_in(self.toolbox.root("mcopy"), [name, "-i", f"{self.path}@@{MIB}", *args])

    def put(self, target: str, content: bytes) -> None:
        """Write a file on the ESP over what is there."""
        source = self.path.with_name("put")
        source.write_bytes(content)
        self.mtool("mcopy", "-o", os.fspath(source), f"::{target}")

    def pack(self) -> Path:
        """Return an archive of the disk as Compute Engine takes it."""
        plain = self.path.with_name("plain.tar")
        packed = self.path.with_name("image.tar.gz")
        options = ("--create", "--sparse", "--format=oldgnu", "--directory", self.path.parent)
        self.toolbox.run("tar", *options, "--file", plain, self.path.name)
        packed.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=1))
        return packed

    def inspect(self) -> Inspection:
        """Inspect the copy."""
        return inspect(self.path, self.contract, self.toolbox)

    def sentences(self) -> list[str]:
        """Return the sentences of all breaches."""
        return [check.sentence for check in self.inspect().breaches]


def small_image(directory: Path, contract: Contract | None = None, toolbox: Toolbox | None = None) -> SmallImage:
    """Build a disk that obeys the contract in `directory`, which exists; boot loader and kernel are headers only.

    It takes about a second; `SmallImage.copy` takes none. Raises HostError when the tools are missing.
    """
    contract, toolbox = contract or contracts.default(), toolbox or tools.find()
    boot = contract.boot
    contents = {
        boot.loader: program(),
        boot.loader_config: b"timeout 0\n",
        boot.entry: ENTRY.encode(),
        boot.kernel: kernel(),
        boot.initrd: gzip.compress(b"070701"),
    }
    esp = {}
    for index, (target, content) in enumerate(contents.items()):
        esp[target] = directory / f"esp-{index}"
        esp[target].write_bytes(content)
    system = directory / "store" / STORE_PATH.rpartition("/")[2]
    system.mkdir(parents=True)
    (system / "init").write_text("#!/bin/sh\n")
    spec = ImageSpec(
        version=1,
        name="test",
        esp=esp,
        store=StoreSpec(directory=system.parent, paths=(STORE_PATH,)),
        contract=_said(contract),
    )
    disk = directory / "disk.raw"
    assemble(spec, disk, toolbox)
    return SmallImage(disk, contract, toolbox)


def _said(contract: Contract) -> dict[str, Any]:
    """Return a contract as it stands in a file, without what is not said."""

    def said(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: said(inner) for key, inner in value.items() if inner is not None}
        return [said(inner) for inner in value] if isinstance(value, list) else value

    told: dict[str, Any] = msgspec.to_builtins(contract)
    return {key: said(value) for key, value in told.items() if key != "origin"}


LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ALL_SECTOR_SIZES = gpt.SECTOR_SIZES
