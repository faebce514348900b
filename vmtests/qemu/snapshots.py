"""Booted machines that are kept in the cache, so that the next run begins where a boot had ended.

An entry is a machine's template with the record of its boot. Its record is written last: an entry without one is
half made, and is made again. A lock on each entry is shared by all who use it and held alone by who makes or removes
it (flock(2), which ends with its holder).
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from rich.text import Text

from vmtests import progress
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.errors import HostError, InputError, at_named, from_os
from vmtests.guest.keys import Key
from vmtests.host.accel import Accelerator, AcceleratorName, state_of_host
from vmtests.host.architecture import GUEST
from vmtests.host.firmware import Firmware
from vmtests.host.scratch import remove
from vmtests.host.tools import Toolbox
from vmtests.machine.confine import disk_files
from vmtests.machine.hardware import Hardware
from vmtests.machine.template import Template
from vmtests.sizes import GIB, MIB
from vmtests.text import printable

VERSION = 10
LIMIT = 8 * GIB
"""Bytes that all entries may take on the disk; those that were used longest ago go first."""

LOGS = {
    # Both from QEMU's: ours may be a few bytes behind it.
    "console.log": "ttyS0.log",
    "ttyS0.log": "ttyS0.log",
    "ttyS1.log": "ttyS1.log",
    "console.jsonl": "console.jsonl",
    "firmware.log": "firmware.log",
}
"""What a snapshot keeps of a boot's logs, and what it is a copy of."""

RECORD = "record.json"
_SAMPLES, _BLOCK, _ENDS = 64, 4096, 64 << 10  # blocks of an image that are looked at, and bytes of each
_PACKAGE = Path(__file__).parents[1]
_NO_PART = frozenset(
    {"cli", "cockpit", "emulator", "faults", "gce", "plugin", "plugin.py", "report", "suite", "testing"}
)
"""Rooms that take no part in a boot or in judging it; all others do, those that are still to come, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a template: where it is, its machine, the boot behind it, and how to see that it is whole.

    `prepared` is what `SerialShell.prepare` returned, None where nobody is logged in on the serial line; `state` is
    the SHA-256 of the devices' state; `changed` has when each other file was changed last.
    """

    version: int
    place: str
    image: str
    hardware: Hardware
    token: str
    public_key: str
    host_keys: tuple[str, ...]
    prepared: str | None
    past: Past
    state: str
    changed: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A booted machine at rest, from which any number of machines go on."""

    template: Template
    record: Record

    @property
    def key(self) -> Key:
        """The ssh key that the guest lets in."""
        return Key(path=self.template.directory / "id_ed25519", public=self.record.public_key)

    def give_logs(self, results: Path) -> Self:
        """Copy the logs of the boot to `results`, which is made; who resumes what is returned continues them.

        Raises HostError, InputError where `results` cannot be.
        """
        try:
            results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "name another directory with --vm-results"
            raise at_named(f"results cannot be written to {results}", error, hint) from error
        for log in LOGS:
            _copy(self.template.directory / log, results / log)
        return replace(self, record=replace(self.record, past=replace(self.record.past, logged=True)))


def take_logs(results: Path, template: Template) -> None:
    """Copy the logs of the boot from the results of the machine, or raise HostError."""
    for log, source in LOGS.items():
        _copy(results / source, template.directory / log)


def forget_logs(results: Path) -> None:
    """Remove the logs that were given: who had them does not go on."""
    for log in LOGS:
        (results / log).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise from_os("the logs of a kept machine cannot be copied", error) from error


def save(snapshot: Snapshot) -> None:
    """Write the record, which makes the entry whole; raises HostError."""
    path = snapshot.template.directory / RECORD
    partial = path.with_name(f"{RECORD}.partial")
    try:
        partial.write_bytes(msgspec.json.encode(snapshot.record, enc_hook=str))
        partial.replace(path)
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error


def load(directory: Path, *, clear: bool = False) -> Snapshot | None:
    """Return the entry in `directory`; None when there is none that is whole and sound.

    With `clear`, for who holds its lock alone, what is not sound is removed, with a word about it.
    """
    try:
        data = (directory / RECORD).read_bytes()
        record = msgspec.json.decode(data, type=Record, strict=False, dec_hook=lambda kind, value: kind(value))
        snapshot = Snapshot(template=Template(directory), record=record)
        if (wrong := _wrong(snapshot)) is None:
            os.utime(directory / RECORD)
            return snapshot
    except FileNotFoundError as error:
        wrong = "" if error.filename == str(directory / RECORD) else f"{error.filename} is missing"
    except (msgspec.DecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        wrong = str(error)
    if clear:
        if wrong:
            progress.stderr().print(Text(f"a kept machine is not sound and is booted again: {printable(wrong)}"))
        remove(directory)
    return None


def state_digest(template: Template) -> str:
    """Return the SHA-256 of the devices' state."""
    with template.state.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_changed(template: Template) -> dict[str, int]:
    """Return when the files of a template were changed last, in nanoseconds, by the kernel's word.

    It is the time that nobody can set back (stat(2), st_ctim): the memory is too large to be read each time.
    """
    files = (template.ram, template.disk, template.overlay, template.variables)
    return {path.name: path.stat().st_ctime_ns for path in files}


def _wrong(snapshot: Snapshot) -> str | None:
    record, template = snapshot.record, snapshot.template
    if record.version != VERSION or record.place != str(template.directory):
        return f"{template.directory} was made elsewhere, or by another version"
    if template.ram.stat().st_size != record.hardware.memory_mib * MIB:
        return f"{template.ram} has another size than the machine's memory"
    if record.state != state_digest(template):
        return f"{template.state} was changed"
    now = last_changed(template)
    if changed := [name for name, when in now.items() if record.changed.get(name) != when]:
        return f"{template.directory / changed[0]} was changed"
    for log in LOGS:
        (template.directory / log).stat()
    if not Path(record.image).is_file():
        return f"its image {record.image} is gone"
    return None


def directory(
    base: Path,
    image: Path,
    contract: Contract,
    hardware: Hardware,
    toolbox: Toolbox,
    accelerator: Accelerator,
    stage: Stage = Stage.READY,
    *,
    firmware: Firmware | None = None,
    handed: str = "",
) -> Path:
    """Return the place below `base` of the machine that is made of all this, by this version of vmtests and QEMU.

    It is kept where `stage` began. `firmware` is that which QEMU does not bring itself, `handed` names what else its
    guest was given.
    """
    # The time of change (stat(2), st_ctim), which nobody can set back: images that Nix makes have one size and the
    # same time of modification, and `cp -a` writes the next over the last. A file system that is read-only may have
    # one time for all files: what is in the image counts, too.
    files = [each for path in (image, *hardware.files) if path.exists() for each in disk_files(path)]
    files += toolbox.machine_files()  # a distribution's next build has the same version
    files += [] if firmware is None else [firmware.code.outside, firmware.vars_template.outside]
    for path in (image.absolute(), base, *files):
        if os.fsencode(path).decode("utf-8", "replace") != str(path):
            shown = printable(str(path))
            raise InputError(
                f"no machine of {shown} can be kept: its name is not in UTF-8", hint="give it another name"
            )
    stats = [(str(path), *_identity(path)) for path in files]
    qemu = toolbox.tools[GUEST.qemu]
    known = (
        VERSION,
        stats,
        (qemu.version, str(toolbox.root(qemu.name))),
        (str(accelerator.name), accelerator.cpu, state_of_host() if accelerator.name is AcceleratorName.KVM else ""),
        hardware,
        repr(contract),
        str(stage),
        handed,
        _code(),
    )
    digest = hashlib.sha256(msgspec.json.encode(known, enc_hook=str)).hexdigest()[:20]
    return base / "snapshots" / f"{image.parent.name[:60]}-{digest}"


def _identity(path: Path) -> tuple[int, int, int, str]:
    stat = path.stat()
    return stat.st_size, stat.st_ctime_ns, stat.st_ino, _sample(path, stat.st_size)


def _sample(image: Path, size: int) -> str:
    """Return a digest of an image's ends, with its partition tables, and of blocks all over it: milliseconds."""
    digest = hashlib.sha256()
    with image.open("rb", buffering=0) as file:
        for place in (0, *(size * part // _SAMPLES for part in range(1, _SAMPLES)), max(size - _ENDS, 0)):
            length = _ENDS if place == 0 or place + _ENDS >= size else _BLOCK
            digest.update(os.pread(file.fileno(), length, place // _BLOCK * _BLOCK))
    return digest.hexdigest()


def _code() -> str:
    """Return a digest of what takes part in a boot and in judging it."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.relative_to(_PACKAGE).parts[0] not in _NO_PART:
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Lock:
    """An entry's lock, shared at first; a context manager."""

    def __init__(self, directory: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        self._path = directory.with_name(f"{directory.name}.lock")

    def __enter__(self) -> Self:
        self._file = self._path.open("ab")
        self.share()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def share(self) -> None:
        """Hold it with others; waits for whoever makes the entry just now."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def alone(self) -> None:
        """Hold it alone; waits for all others. What was seen before may have changed."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def alone_now(self) -> bool:
        """Hold it alone if nobody else holds it; if not it is held no more."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def prune(keep: Path) -> None:
    """Remove what was left half made, and the entries used longest ago until the rest fits in LIMIT."""
    sizes = {}
    for entry in keep.parent.iterdir():
        if entry.is_dir():
            with contextlib.suppress(OSError):
                sizes[entry] = sum(path.stat().st_blocks * 512 for path in entry.iterdir())
    total = sum(sizes.values())
    for entry in sorted(sizes, key=_used):
        whole = (entry / RECORD).exists()
        if entry == keep or (whole and total <= LIMIT):
            continue
        with contextlib.suppress(BlockingIOError), entry.with_name(f"{entry.name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(entry)
            total -= sizes[entry]


def _used(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return (entry / RECORD).stat().st_mtime
    return 0.0
