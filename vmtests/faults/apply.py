"""Breaking a copy of an image: each step of a fault, done with the tools that a person would use."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vmtests.contract import TYPES, Contract, Promise
from vmtests.errors import HostError, InputError, at_named
from vmtests.faults import cpio, signing, store
from vmtests.faults.catalogue import (
    Esp,
    Fault,
    Feature,
    Flip,
    Host,
    Initrd,
    Machine,
    Options,
    Overwrite,
    Root,
    Sign,
    Table,
)
from vmtests.host.copies import copy_disk
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import ext4, gpt, stream
from vmtests.image.inspect import match
from vmtests.image.source import Source, open_disk
from vmtests.machine.disk import backing
from vmtests.machine.hardware import DiskFaults, Hardware

SECTOR = 512
"""Bytes of a sector of the machine's disk."""

_MIB = 1 << 20
_INITRD_LIMIT = 512 * _MIB
_FREE_BLOCKS = 0x0C  # s_free_blocks_count_lo (fs/ext4/ext4.h)
_SPARE = 24  # blocks for the large file's extents
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A broken image: the copy of the disk, the machine, and what happens on the host."""

    disk: Path
    hardware: Hardware
    actions: tuple[Host, ...]


@contextlib.contextmanager
def broken(fault: Fault, image: Path, scratch: Path, contract: Contract, toolbox: Toolbox) -> Iterator[Broken]:
    """Give a broken raw copy of the disk `image`, which shares its blocks where the file system can; it is removed.

    Raises InputError when the image has not what a step breaks, HostError when a tool fails.
    """
    with tempfile.TemporaryDirectory(prefix=f".{fault.name}-", dir=scratch) as name:
        disk = Path(name) / "disk.raw"
        hardware = _break(fault, image, disk, contract, toolbox)
        actions = tuple(step for step in fault.steps if isinstance(step, Host))
        yield Broken(disk=disk, hardware=hardware, actions=actions)


def keep(fault: Fault, image: Path, out: Path, contract: Contract, toolbox: Toolbox) -> None:
    """Write a broken raw copy of the disk `image` to `out`, which appears when it is whole.

    Raises InputError when the fault is not in the disk alone, when the image has not what a step breaks, and when
    `out` exists or cannot be written; HostError when a tool fails.
    """
    if any(isinstance(step, Machine | Host) for step in fault.steps):
        raise InputError(
            f"{fault.name} breaks the machine or its host, and no disk: {fault.broken}",
            hint=f"vmtests faults {fault.name} boots it",
        )
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} is there already", hint="name another file with --out")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{fault.name}-", dir=out.parent) as name:
            disk = Path(name) / "disk.raw"
            _break(fault, image, disk, contract, toolbox)
            disk.chmod(0o644)
            disk.replace(out)
    except OSError as error:
        raise at_named(f"{out} cannot be written", error, "name another file with --out") from error


def _break(fault: Fault, image: Path, disk: Path, contract: Contract, toolbox: Toolbox) -> Hardware:
    copy(image, disk, toolbox)
    with open_disk(disk, toolbox) as source:
        work = _Work(disk.parent, disk, source, contract, toolbox)
        for step in fault.steps:
            work.do(step)
    return work.hardware


def copy(image: Path, disk: Path, toolbox: Toolbox) -> None:
    """Copy a disk, sparse, or sharing its blocks where the file system can; one that is not raw becomes raw."""
    if (form := backing(image).format) != "raw":
        toolbox.run("qemu-img", "convert", "-f", form, "-O", "raw", image, disk)
        disk.chmod(0o600)
        return
    copy_disk(image, disk)
    disk.chmod(0o600)


class _Work:
    """A copy that is being broken; partitions are those of the table before the first step."""

    def __init__(self, directory: Path, disk: Path, source: Source, contract: Contract, toolbox: Toolbox) -> None:
        self._directory = directory
        self._disk = disk
        self._contract = contract
        self._toolbox = toolbox
        self._table = gpt.read(source, gpt.sector_size(source) or contract.disk.sector_size or SECTOR)
        self._entries = _entries(contract, self._table)
        self._size = source.size
        self.hardware = Hardware()

    def do(self, step: object) -> None:
        """Do one step."""
        doers: dict[type, Callable[..., None]] = {
            Overwrite: self._overwrite,
            Flip: self._flip,
            Feature: self._feature,
            Esp: self._esp,
            Sign: self._sign,
            Options: self._options,
            Initrd: self._initrd,
            Root: self._root,
            Table: self._change_table,
            Machine: self._machine,
        }
        if (doer := doers.get(type(step))) is not None:
            doer(step)

    def _range(self, partition: str | None) -> tuple[int, int]:
        """Return first byte and size of a partition, or of the disk."""
        if partition is None:
            return 0, self._size
        entry = self._entries.get(partition)
        if entry is None:
            raise InputError(f"the image has no partition for {partition}", hint="vmtests inspect says what it has")
        return self._table.start(entry), self._table.length(entry)

    def _overwrite(self, step: Overwrite) -> None:
        start, size = self._range(step.partition)
        at = start + (step.offset if step.offset >= 0 else size + step.offset)
        data = bytes.fromhex(step.hex) if step.hex else bytes(step.size)
        with self._disk.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def _flip(self, step: Flip) -> None:
        at = store.place(step.at, self._disk, *self._range("store"))
        with self._disk.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << step.bit]))

    def _feature(self, step: Feature) -> None:
        start, _ = self._range("store")
        with self._disk.open("r+b") as file:
            file.seek(start)
            block = store.with_feature(file.read(4096), step.incompat)
            file.seek(start)
            file.write(block)

    # The ESP, with mtools.

    def _mtools(self, name: str, *args: str) -> str:
        place = f"{self._disk}@@{self._range('esp')[0]}"
        environment = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull}
        return run_in(self._toolbox.root("mcopy"), [name, "-i", place, *args], env=environment)

    def _path(self, path: str) -> str:
        boot = self._contract.boot
        names = {"loader": boot.loader, "entry": boot.entry, "kernel": boot.kernel, "initrd": boot.initrd}
        return path.format_map(names)

    def _get(self, path: str) -> Path:
        target = self._directory / "from-esp"
        self._mtools("mcopy", "-n", "-o", f"::{self._path(path)}", os.fspath(target))
        return target

    def _put(self, source: Path, path: str) -> None:
        self._mtools("mcopy", "-D", "o", "-o", os.fspath(source), f"::{self._path(path)}")

    def _esp(self, step: Esp) -> None:
        for path in step.remove:
            self._mtools("mdel", f"::{self._path(path)}")
        for path, text in step.write.items():
            source = self._directory / "to-esp"
            source.write_text(self._path(text) if "{" in text else text)
            self._put(source, path)
        for path, size in step.truncate.items():
            source = self._get(path)
            os.truncate(source, size)
            self._put(source, path)
        for path in step.exhaust:
            old = PurePosixPath(self._path(path))
            # systemd.io/AUTOMATIC_BOOT_ASSESSMENT: tries left, and those that failed.
            self._mtools("mren", f"::{old}", f"::{old.with_name(f'{old.stem}+0-3{old.suffix}')}")

    def _sign(self, step: Sign) -> None:
        for path in step.files:
            program = self._get(path)
            signing.sign(self._toolbox, program, self._directory)
            self._put(program, path)

    def _options(self, step: Options) -> None:
        entry = self._get(self._contract.boot.entry)
        lines = []
        for line in entry.read_text().splitlines():
            key, _, rest = line.partition(" ")
            if key == "options":
                words = [word for word in rest.split() if not word.startswith(step.remove or ("\0",))]
                line = " ".join([key, *words, *step.add])
            lines.append(f"{line}\n")
        entry.write_text("".join(lines))
        self._put(entry, self._contract.boot.entry)

    def _initrd(self, step: Initrd) -> None:
        packed = self._get(self._contract.boot.initrd)
        plain = self._directory / "initrd.cpio"
        with packed.open("rb") as file:
            data: bytes | None = file.read(_INITRD_LIMIT + 1)
        if data is not None and data.startswith(_ZSTD):
            data = stream.whole(data, _INITRD_LIMIT, self._toolbox)
        if data is None or len(data) > _INITRD_LIMIT:
            raise InputError("the initrd is damaged, or too large to be changed")
        members = cpio.parse(data)
        for pattern in step.remove:
            cpio.remove(members, pattern)
        for old, new in step.rename.items():
            cpio.rename(members, old, new)
        for pattern, changes in step.replace.items():
            for old, new in changes.items():
                cpio.replace(members, pattern, old, new)
        for path, text in step.write.items():
            cpio.put(members, path, text.encode())
        for path, target in step.symlink.items():
            cpio.put(members, path, target.encode(), link=True)
        with plain.open("wb") as file:
            if step.ballast:
                file.write(cpio.head("ballast", stat.S_IFREG | 0o644, step.ballast * _MIB))
                file.seek(step.ballast * _MIB, os.SEEK_CUR)  # a hole is zeros
            file.write(cpio.pack(members))
        self._toolbox.run("zstd", "--quiet", "--force", "-T0", "-3", plain, "-o", packed)
        self._put(packed, self._contract.boot.initrd)

    # The root partition, with debugfs(8).

    def _system(self, text: str) -> str:
        """Return `text` with the name in the store of what `init=` names."""
        if "{system}" not in text:
            return text
        found = re.search(
            r"^options .*\binit=/nix/store/([^/\s]+)", self._get(self._contract.boot.entry).read_text(), re.MULTILINE
        )
        if found is None:
            raise InputError("the boot entry names no init in the store")
        return text.replace("{system}", found[1])

    def _root(self, step: Root) -> None:
        commands = []
        write = {self._system(path): text for path, text in step.write.items()}
        for number, (path, text) in enumerate(write.items()):
            source = self._directory / f"to-root-{number}"
            source.write_text(text)
            directory, _, name = path.rpartition("/")
            commands += [*_directories(path), f"cd {directory or '/'}", f"rm {name}", f"write {source} {name}"]
            commands += [f"sif {name} mode 0100755"] if text.startswith("#!") else []
        for path, target in step.symlink.items():
            commands += [*_directories(path), f"rm {path}", f"symlink {path} {target}"]
        commands += map(self._system, step.commands)
        script = self._directory / "debugfs"
        start, size = self._range("root")
        # debugfs has no way to begin in the middle of a file that works with every release of it.
        part = self._directory / "root.ext4"
        _extract(self._disk, start, size, part)
        if step.fill:
            commands += self._fill(part)
        come = (*write, *step.symlink)
        script.write_text("".join(f"{line}\n" for line in (*commands, *(f"stat {path}" for path in come))))
        # debugfs exits with 0 whatever failed.
        if self._toolbox.run("debugfs", "-w", "-f", script, part).count("Inode: ") < len(come):
            raise HostError(f"debugfs could not write {', '.join(come)} to the root partition")
        _insert(part, self._disk, start)
        part.unlink()

    def _fill(self, part: Path) -> list[str]:
        """Return the commands that take every free block: one large file, then small ones until there is no more."""
        with part.open("rb") as file:
            file.seek(ext4.OFFSET + _FREE_BLOCKS)
            free = int.from_bytes(file.read(4), "little")
        empty, block = self._directory / "empty", self._directory / "block"
        empty.touch()
        block.write_bytes(b"x" * 4096)
        small = [f"write {block} filler-{number}" for number in range(_SPARE + 8)]
        return ["cd /", f"write {empty} filler", f"fallocate /filler 0 {free - _SPARE - 1}", *small]

    # The table, with sfdisk(8).

    def _change_table(self, step: Table) -> None:
        entry = self._entries.get(step.partition)
        if entry is None:
            raise InputError(f"the image has no partition for {step.partition}")
        base = ("--quiet", "--no-tell-kernel", "--no-reread")
        number = str(entry.number)
        if step.label is not None:
            self._toolbox.run("sfdisk", *base, "--part-label", self._disk, number, step.label)
        if step.type is not None:
            self._toolbox.run("sfdisk", *base, "--part-type", self._disk, number, step.type)
        if step.sectors is not None:
            self._toolbox.run(
                "sfdisk", *base, "--force", "-N", number, self._disk, stdin=f"{entry.first_lba},{step.sectors}\n"
            )
        if step.delete:
            self._toolbox.run("sfdisk", *base, "--delete", self._disk, number)

    def _machine(self, step: Machine) -> None:
        bad = None
        if step.read_error is not None:
            bad = store.place(step.read_error, self._disk, *self._range("store")) // SECTOR
        self.hardware = replace(
            self.hardware,
            memory_mib=step.memory_mib,
            secure_boot=step.secure_boot,
            firmware_vars=signing.variables(self._toolbox) if step.own_keys else None,
            disk_bus=step.disk_bus,
            cmdline_extra=step.cmdline,
            disk_size=None if step.grow else self._size,
            disk_faults=DiskFaults(bad_sector=bad, full=step.disk_full, bytes_per_second=step.bytes_per_second),
        )


def _entries(contract: Contract, table: gpt.Table) -> dict[str, gpt.Entry]:
    """Return the entry of each partition of the contract, by its name there."""
    if Promise.STORE in contract.promises:
        return match(contract, table.entries)
    found: dict[str, gpt.Entry] = {}
    for partition in contract.partition:
        for entry in table.entries:
            if TYPES.get(entry.type_uuid) == partition.type and entry.label == partition.label:
                found.setdefault(partition.name, entry)
    return found


def _directories(path: str) -> list[str]:
    """Return debugfs' commands that make the directories above `path`; to it, `/x` is in the directory it is in."""
    return ["cd /", *(f"mkdir {above}" for above in reversed(PurePosixPath(path).parents[:-1]))]


def _extract(disk: Path, start: int, size: int, part: Path) -> None:
    """Copy a range of a disk to a file of its own, sparse."""
    with disk.open("rb") as source, part.open("wb") as target:
        target.truncate(size)
        for begin, end in _data(source.fileno(), start, start + size):
            os.copy_file_range(source.fileno(), target.fileno(), end - begin, begin, begin - start)


def _insert(part: Path, disk: Path, start: int) -> None:
    with part.open("rb") as source, disk.open("r+b") as target:
        for begin, end in _data(source.fileno(), 0, part.stat().st_size):
            at = begin
            while at < end:
                at += os.copy_file_range(source.fileno(), target.fileno(), end - at, at, start + at)


def _data(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that hold data, between `start` and `end` (lseek(2), SEEK_DATA)."""
    at = start
    while at < end:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole is left
        if begin >= end:
            return
        at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), end)
        yield begin, at
