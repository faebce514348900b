"""Makes a disk of an image spec, writing every byte of the store once.

mkfs.erofs writes the store straight into the disk file; `fallocate --insert-range` then makes room in front of it
(fallocate(2): ext4 and xfs), and systemd-repart adds the ESP and the root partition around it. Where the file
system cannot insert, the store is written to a file of its own and copied by repart.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from vmtests import progress
from vmtests.contract import Contract
from vmtests.errors import HostError, from_os
from vmtests.host.sandbox import ToolError, is_root, refusal
from vmtests.host.tools import Toolbox
from vmtests.image import erofs, gpt, repart, unprivileged
from vmtests.image.source import open_disk
from vmtests.image.spec import ImageSpec, RootEntry
from vmtests.sizes import MIB, round_up

STORE_TIME = 1
"""Modification time of everything in the store and on the root, in seconds: what Nix gives store paths."""

_END_OF_TABLE = MIB  # the backup GPT and repart's alignment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The directories of one build, all on the file system of the image to be."""

    directory: Path
    disk: Path

    @property
    def tree(self) -> Path:
        return self.directory / "store"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def definitions(self) -> Path:
        return self.directory / "repart.d"


def assemble(spec: ImageSpec, disk: Path, toolbox: Toolbox) -> None:
    """Write the image that `spec` describes to `disk`, which appears whole or not at all.

    Raises HostError when a tool fails or the disk is full. Scratch files are beside `disk` and are removed.
    """
    contract = spec.image_contract()
    try:
        disk.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{disk.name}.", dir=disk.parent)
    except OSError as error:
        raise HostError(f"{disk.parent} is not writable: {error.strerror}") from error
    with scratch as name, progress.step(f"image {spec.name}") as running:
        work = _Work(directory=Path(name), disk=Path(name) / "disk.raw")
        for directory in (work.tree, work.root):
            directory.mkdir()
        try:
            running.note("root")
            _fill_root(spec, contract, work, toolbox)
            running.note("store")
            in_place = _write_store(spec, contract, work, toolbox)
            running.note("partitions")
            _partition(spec, contract, work, toolbox, in_place=in_place)
            _sync(work.disk)
        except OSError as error:
            raise from_os(f"image {spec.name} cannot be written", error) from error
        work.disk.replace(disk)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill_root(spec: ImageSpec, contract: Contract, work: _Work, toolbox: Toolbox) -> None:
    """Put the content of the root partition into the scratch directory."""
    for entry in spec.root:
        _place(entry, work.root)
    # upperdir and workdir are made at boot; here is only what is mounted on.
    for mount_point in (contract.store.mount, contract.store.lower):
        (work.root / mount_point.lstrip("/")).mkdir(parents=True, exist_ok=True)
    if spec.registration is not None:
        _load_database(spec.registration, spec.state or contract.store.state, contract, work, toolbox)
    for directory, names, files in os.walk(work.root):
        for item in (*names, *files):
            os.utime(Path(directory, item), (STORE_TIME, STORE_TIME), follow_symlinks=False)


def _place(entry: RootEntry, root: Path) -> None:
    target = root / entry.path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.symlink is not None:
        target.symlink_to(entry.symlink)
    elif entry.source is None:
        target.mkdir(exist_ok=True)
    elif entry.source.is_dir():
        shutil.copytree(entry.source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(entry.source, target, follow_symlinks=True)
    if entry.mode is not None and entry.symlink is None:
        target.chmod(int(entry.mode, 8))


def _load_database(registration: Path, directory: str, contract: Contract, work: _Work, toolbox: Toolbox) -> None:
    """Make the Nix database of the image, once, on its root partition.

    A registration that is loaded at every boot brings back to life what garbage collection had deleted.
    """
    state = work.root / directory.lstrip("/")
    state.mkdir(parents=True, exist_ok=True)
    place = {"store": contract.store.mount, "state": state, "real": work.directory / "no-store"}
    toolbox.run(
        "nix-store",
        # A store by parameters (nix3-help-stores(1)), with another place for its files than the host's /nix/store.
        *("--store", f"local?{urlencode(place, quote_via=quote)}", "--option", "build-users-group", ""),
        "--load-db",
        stdin=registration.read_text(),
        env={
            "NIX_STATE_DIR": os.fspath(state),
            "NIX_CONF_DIR": os.fspath(work.directory),
            "HOME": os.fspath(work.directory),
        },
    )
    with contextlib.closing(sqlite3.connect(state / "db/db.sqlite")) as database, database:
        database.execute("UPDATE ValidPaths SET registrationTime = ?", (STORE_TIME,))
    # Nix makes this link, to where the profiles are now.
    profiles = state / "gcroots/profiles"
    profiles.unlink(missing_ok=True)
    profiles.symlink_to(f"{directory}/profiles")
    for leftover in ("gc.lock", "temproots", "db/big-lock", "db/reserved"):
        path = state / leftover
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_store(spec: ImageSpec, contract: Contract, work: _Work, toolbox: Toolbox) -> bool:
    """Write the erofs; return whether it stands in the disk file with room in front of it."""
    _mkfs_erofs(spec, contract, work, toolbox)
    os.truncate(work.disk, round_up(_erofs_size(work.disk), MIB))
    try:
        toolbox.run(
            "fallocate",
            "--insert-range",
            "--offset",
            "0",
            "--length",
            str(_store_start(contract)),
            work.disk,
        )
    except ToolError as error:
        if "not supported" not in error.stderr and "Invalid argument" not in error.stderr:
            raise
        work.disk.rename(work.directory / "store.erofs")
        return False
    return True


def _erofs_size(file: Path) -> int:
    """Return the bytes of the file system in `file`, which mkfs.erofs 1.8 leaves longer, with a hole at its end."""
    with file.open("rb") as opened:
        superblock = erofs.parse(os.pread(opened.fileno(), MIB, erofs.OFFSET))
    if superblock is None or superblock.size > file.stat().st_size:
        # mkfs.erofs 1.8.6 exits with 0 when it runs out of space.
        raise HostError("mkfs.erofs did not write a whole file system", hint="is the disk full?")
    return superblock.size


def _store_start(contract: Contract) -> int:
    """Return the offset of the store in bytes: behind the table and the partitions that come first."""
    start = MIB
    for partition in contract.partition:
        if partition.name == "store":
            break
        start += partition.size_bytes or 0
    return start


def _mkfs_erofs(spec: ImageSpec, contract: Contract, work: _Work, toolbox: Toolbox) -> None:
    compression = [] if spec.compression == "none" else [f"-z{spec.compression}"]
    # Nix's local overlay store wants the directory of its links in the layer that it cannot write to.
    mounts: list[str] = []
    if refusal() is None:
        mounts = ["--tmpfs", os.fspath(work.tree), "--dir", os.fspath(work.tree / ".links")]
    else:
        (work.tree / ".links").mkdir()
    for path in spec.store.paths:
        source = spec.store.source(path)
        target = work.tree / source.name
        if not mounts:
            unprivileged.link_tree(source, target)
            continue
        # A symlink can be a store path too, and a bind mount would follow it.
        if source.is_symlink():
            mounts += ["--symlink", os.fspath(source.readlink()), os.fspath(target)]
        else:
            mounts += ["--ro-bind", os.fspath(source), os.fspath(target)]
    stored = contract.store_partition
    toolbox.run(
        "mkfs.erofs",
        *("--quiet", f"-T{STORE_TIME}", "--all-root", "--hard-dereference", f"-L{stored.label[:15]}"),
        *(f"-U{repart.partition_uuid(spec.seed, stored)}", *compression),
        *(work.disk, work.tree),
        mounts=mounts,
    )


def _partition(spec: ImageSpec, contract: Contract, work: _Work, toolbox: Toolbox, *, in_place: bool) -> None:
    store = work.disk if in_place else work.directory / "store.erofs"
    start = _store_start(contract)
    store_size = store.stat().st_size - (start if in_place else 0)
    least = start + store_size + (contract.root.size_bytes or 0) + _END_OF_TABLE
    size = round_up(least, contract.disk.granularity_bytes)
    with work.disk.open("ab") as file:
        file.truncate(size)
    content = {
        "esp": {target: os.fspath(source) for target, source in spec.esp.items()},
        "store": {} if in_place else {"CopyBlocks": os.fspath(store)},
        "root": {"/": os.fspath(work.root)},
    }
    repart.write_definitions(work.definitions, contract, spec.seed, content)
    if in_place:
        _write_table(spec, contract, work.disk, start, store_size, toolbox)
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
    )
    if not is_root():
        with open_disk(work.disk, toolbox) as disk:
            table = gpt.read(disk, contract.disk.sector_size)
        start = next(table.start(entry) for entry in table.entries if entry.label == contract.root.label)
        unprivileged.give_to_root(work.disk, start, toolbox)
    # Repart appends to a table; sorted, the numbers are those of the contract's order.
    toolbox.run("sfdisk", "--quiet", "--no-tell-kernel", "--no-reread", "--reorder", work.disk)


def _write_table(spec: ImageSpec, contract: Contract, disk: Path, start: int, size: int, toolbox: Toolbox) -> None:
    """Write a table whose only entry is the store that is already there."""
    store, sector = contract.store_partition, contract.disk.sector_size
    fields = (
        f"start={start // sector}",
        f"size={size // sector}",
        f"type={store.type_uuid}",
        f"uuid={repart.partition_uuid(spec.seed, store)}",
        f'name="{store.label}"',
    )
    script = f"label: gpt\nlabel-id: {spec.seed}\n{', '.join(fields)}\n"
    toolbox.run("sfdisk", "--quiet", "--no-tell-kernel", "--no-reread", disk, stdin=script)
