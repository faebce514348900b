"""Makes a disk of an image spec, writing every byte of the store once.

The store is written straight to its place in the disk file (`erofsplan`, `erofswrite`), while systemd-repart makes the
ESP and the root partition around it. A store that is compressed (`mkerofs`) is written to a file of its own and copied
by repart.
"""

import os
import uuid
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from vmtests import progress
from vmtests.contract import Contract
from vmtests.errors import HostError, InputError, at_named, from_os
from vmtests.host.alongside import alongside
from vmtests.host.place import free
from vmtests.host.sandbox import is_root
from vmtests.host.tools import Toolbox
from vmtests.image import compression, erofsplan, erofswrite, gpt, gptwrite, mkerofs, repart, rootfiles, unprivileged
from vmtests.image.check import Slice
from vmtests.image.erofsplan import Plan
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.mkerofs import STORE_TIME
from vmtests.image.modes import usual_modes
from vmtests.image.rootfiles import Modes
from vmtests.image.source import open_disk
from vmtests.image.spec import ImageSpec
from vmtests.image.spec_check import check_root
from vmtests.image.survey import Totals, survey
from vmtests.image.target import beside, publish
from vmtests.sizes import MIB, format_size, round_up
from vmtests.text import printable

_END_OF_TABLE = MIB  # the backup GPT and repart's alignment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The directories of one build, all on the file system of the image to be."""

    directory: Path
    disk: Path

    @property
    def store(self) -> Path:
        return self.directory / "store.erofs"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def definitions(self) -> Path:
        return self.directory / "repart.d"


def assemble(spec: ImageSpec, disk: Path, toolbox: Toolbox) -> dict[str, float]:
    """Write the image that `spec` describes to `disk`, which appears whole or not at all; return seconds by part.

    Raises InputError for what no image can hold and HostError for a disk without the space, both before a byte is
    written; HostError when a tool fails. Scratch files are beside `disk` and are removed.
    """
    contract = spec.image_contract()
    with progress.step(f"image {spec.name}") as running:
        running.phase("survey")
        named = [(f"store path {path}", spec.store.name(path)) for path in spec.store.paths]
        plan, store = None, Totals()
        if compression.parse(spec.compression).on:
            store = survey((place, spec.store.directory / name) for place, name in named)
        else:
            plan = erofsplan.plan(os.fspath(spec.store.directory), named, (mkerofs.LINKS,))
        root = survey(
            (f"root[{index}].source", entry.source.resolve())
            for index, entry in enumerate(spec.root)
            if entry.source is not None
        )
        registered = 0 if spec.registration is None else spec.registration.stat().st_size
        check_root(root, rootfiles.DATABASE * registered, contract, f"image {spec.name}")
        try:
            disk.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise at_named(f"{disk.parent} is not writable", error, "name another place") from error
        with beside(disk) as directory:
            work = _Work(directory=directory, disk=directory / "disk.raw")
            try:
                _check_space(spec, plan.size if plan else 2 * store.size, root, work)
                running.phase("root")
                with usual_modes():
                    modes = rootfiles.fill(spec, contract, work.root)
                running.phase("store")
                if plan is None:
                    _finish_root(spec, contract, work, modes, toolbox)
                    store_size = _write_compressed(spec, contract, work, store, toolbox, running)
                    running.phase("partitions")
                    _partition(spec, contract, work, toolbox, store_size)
                else:
                    _write_planned(spec, contract, work, plan, modes, toolbox, running)
                running.phase("durable")
                publish(work.disk, disk)
            except OSError as error:
                raise from_os(f"image {spec.name} cannot be written", error) from error
        return running.phases


def _check_space(spec: ImageSpec, store: int, root: Totals, work: _Work) -> None:
    """Raise HostError unless the disk has room for the image, with `store` bytes of store, and for what is scratch."""
    esp = sum(source.stat().st_size for source in spec.esp.values())
    # The ESP and the root partition are each made in a file of their own.
    need = store + 2 * (root.size + esp)
    room = free(work.directory)
    if room is not None and need > room:
        place = work.directory.parent
        raise HostError(
            f"image {spec.name} needs about {format_size(need)}, and {place} has {format_size(room)} free",
            hint="free some space, or build it on another disk",
        )


def _write_planned(
    spec: ImageSpec,
    contract: Contract,
    work: _Work,
    plan: Plan,
    modes: Modes,
    toolbox: Toolbox,
    running: progress.Step,
) -> None:
    """Write the erofs to its place in the disk file, and beside it the other partitions, whose places are known."""
    start, stored, size = _store_start(contract), contract.store_partition, _store_size(contract, plan.size)
    _make_disk(spec, contract, work, size)

    def others() -> None:
        _finish_root(spec, contract, work, modes, toolbox)
        _partition(spec, contract, work, toolbox, size)

    with alongside(others) as partitions:
        identifier = str(repart.partition_uuid(spec.seed, stored))
        erofswrite.write(work.disk, plan, spec.store.directory, stored.label, identifier, start, running, partitions)
        running.phase("partitions")
        partitions.result()


def _finish_root(spec: ImageSpec, contract: Contract, work: _Work, modes: Modes, toolbox: Toolbox) -> None:
    with usual_modes():
        rootfiles.finish(spec, contract, work.root, modes, toolbox)


def _write_compressed(
    spec: ImageSpec, contract: Contract, work: _Work, totals: Totals, toolbox: Toolbox, running: progress.Step
) -> int:
    """Write the erofs into a file of its own; return the size of its partition."""
    stored = contract.store_partition
    volume = mkerofs.Volume(
        label=stored.label,
        uuid=str(repart.partition_uuid(spec.seed, stored)),
        compression=compression.parse(spec.compression),
    )
    names = [spec.store.name(path) for path in spec.store.paths]
    written = mkerofs.write(work.store, volume, spec.store.directory, names, totals, toolbox, running)
    size = _store_size(contract, written)
    os.truncate(work.store, size)
    _make_disk(spec, contract, work, size)
    return size


def _store_start(contract: Contract) -> int:
    """Return the offset of the store in bytes: behind the table and the partitions that come first."""
    before = takewhile(lambda partition: partition.name != "store", contract.partition)
    return MIB + sum(map(repart.least_size, before))


def _store_size(contract: Contract, written: int) -> int:
    """Return the size of the store's partition, in which as much is `written`."""
    return max(round_up(written, MIB), repart.least_size(contract.store_partition))


def _around(contract: Contract) -> int:
    """Return the bytes of a disk that are not its store's, at least."""
    return MIB + sum(repart.least_size(partition) for partition in contract.partition if partition.name != "store")


def _make_disk(spec: ImageSpec, contract: Contract, work: _Work, store_size: int) -> None:
    """Make the disk file, which is one hole yet; raises InputError where it is larger than the contract's."""
    least = _around(contract) + store_size + _END_OF_TABLE
    size, promised = round_up(least, contract.disk.granularity_bytes), contract.disk.size_bytes
    if promised and size > promised:
        text = f"image {spec.name} needs a disk of {format_size(size)}, and its contract's is {contract.disk.size}"
        raise InputError(text, hint="give the contract's disk a larger size, or the store fewer paths")
    with work.disk.open("wb") as file:
        file.truncate(promised or size)


def _partition(spec: ImageSpec, contract: Contract, work: _Work, toolbox: Toolbox, store_size: int) -> None:
    in_place, size, start = not work.store.exists(), work.disk.stat().st_size, _store_start(contract)
    contract = _settled(contract, size, store_size)
    content = {
        # systemd-repart leaves out what has `..` in its path, and says so in a log that nobody reads.
        "esp": {target: os.path.realpath(source) for target, source in spec.esp.items()},
        "store": {} if in_place else {"CopyBlocks": os.path.realpath(work.store)},
        "root": {"/": os.path.realpath(work.root)},
    }
    repart.write_definitions(work.definitions, contract, spec.seed, content)
    if in_place:
        # It uses the smallest gap in which a partition fits, which has to be the one in front of the store.
        os.truncate(work.disk, size + start)
        (work.definitions / "rest.conf").write_text("[Partition]\nType=linux-generic\nSizeMinBytes=4096\n")
        _write_table(spec, contract, work.disk, start, store_size)
    toolbox.run(
        "systemd-repart",
        *(
            "--offline=yes",
            f"--sector-size={contract.disk.sector_size}",
            "--dry-run=no",
            f"--seed={spec.seed}",
        ),
        *(
            f"--empty={'refuse' if in_place else 'force'}",
            f"--definitions={work.definitions}",
            "--no-pager",
            "--size=auto",
        ),
        work.disk,
        env={
            "TMPDIR": os.fspath(work.directory),
            "SOURCE_DATE_EPOCH": str(STORE_TIME),
            # FAT32 of less than 260 MiB has too few clusters for OVMF unless a cluster is one sector.
            "SYSTEMD_REPART_MKFS_OPTIONS_VFAT": "-s1",
            # Repart gives the first two; the seed of directory hashes would be random.
            "SYSTEMD_REPART_MKFS_OPTIONS_EXT4": f"-E nodiscard,lazy_itable_init=1,hash_seed={spec.seed}",
        },
        # In the directory / systemd-repart 257 copies nothing to the ESP, and says nothing.
        cwd=work.directory,
    )
    with open_disk(work.disk, toolbox) as disk:
        table = gpt.read(disk, contract.disk.sector_size)
        entries = _entries(spec, contract, table)
        if table.start(entries[-1]) + table.length(entries[-1]) > gptwrite.usable_end(size, table.sector_size):
            raise HostError("systemd-repart made partitions larger than they were to be, and the disk too small")
        starts = {entry.unique_uuid: table.start(entry) for entry in entries}
        esp, root = (starts[repart.partition_uuid(spec.seed, item)] for item in (contract.esp, contract.root))
        _check_esp(spec, FatFiles(*disk.range(esp, 0)))
        _check_root(work.root, Slice(disk, root, disk.size))
    if not is_root():
        unprivileged.give_to_root(work.disk, root, toolbox)
    if table.header is not None:
        os.truncate(work.disk, size)
        gptwrite.write(work.disk, contract.disk.sector_size, table.header.disk_guid, entries)


def _settled(contract: Contract, size: int, store_size: int) -> Contract:
    """Return the contract with the sizes of all partitions on a disk of `size` bytes: one that grows has the rest."""
    rest = gptwrite.usable_end(size, contract.disk.sector_size) - _around(contract) - store_size
    sizes = {
        partition.name: repart.least_size(partition) + (rest - rest % repart.GRAIN if partition.grow else 0)
        for partition in contract.partition
    } | {"store": store_size}
    settled = (replace(partition, size=str(sizes[partition.name])) for partition in contract.partition)
    return replace(contract, partition=tuple(settled))


def _entries(spec: ImageSpec, contract: Contract, table: gpt.Table) -> list[gpt.Entry]:
    """Return the partitions that systemd-repart made, by their place: it appends to a table.

    Types and labels are the contract's, so that the store's is right. Raises HostError where one is missing.
    """
    made = {entry.unique_uuid: entry for entry in table.entries}
    entries = []
    for partition in contract.partition:
        if (entry := made.get(repart.partition_uuid(spec.seed, partition))) is None:
            raise HostError(f"systemd-repart did not make the partition {printable(partition.name)}")
        entries.append(replace(entry, type_uuid=uuid.UUID(partition.type_uuid), label=partition.label))
    return sorted(entries, key=lambda entry: entry.first_lba)


def _check_esp(spec: ImageSpec, files: FatFiles) -> None:
    """Raise HostError unless the ESP has all that it should have."""
    try:
        missing = [target for target in spec.esp if files.find(target) is None]
    except FilesError as error:
        raise HostError(f"systemd-repart did not write a whole ESP: {error}") from error
    if missing:
        raise HostError(f"systemd-repart did not write {missing[0]} to the ESP", hint="is the disk full?")


def _check_root(tree: Path, content: Slice) -> None:
    """Raise HostError unless root has all that it was made of."""
    try:
        have = {PurePosixPath(path).name for path in ExtFiles(content).below("/", "")}
    except FilesError as error:
        raise HostError(f"systemd-repart did not write a whole root: {error}") from error
    if missing := sorted({entry.name for entry in tree.iterdir()} - have):
        raise HostError(f"systemd-repart did not write /{printable(missing[0])} to root", hint="is the disk full?")


def _write_table(spec: ImageSpec, contract: Contract, disk: Path, start: int, size: int) -> None:
    """Write a table whose only entry is the store that is already there."""
    sector, identifier = contract.disk.sector_size, repart.partition_uuid(spec.seed, contract.store_partition)
    entry = gpt.Entry(
        number=1,
        # Repart takes what is there for the first partition of its type; this type is the store's alone.
        type_uuid=identifier,
        unique_uuid=identifier,
        first_lba=start // sector,
        last_lba=(start + size) // sector - 1,
        attributes=0,
        label=contract.store_partition.label,
    )
    gptwrite.write(disk, sector, uuid.UUID(spec.seed), [entry])
