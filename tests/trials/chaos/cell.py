"""A place in which work is brought to harm, and all that may be left of it."""

import contextlib
import fcntl
import hashlib
import multiprocessing
import os
import secrets
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.small_disk import SmallDisk
from tests.trials.chaos import work
from tests.trials.chaos.work import MARK, Order
from vmtests.gce import tokens
from vmtests.image.archive import data_ranges

SECONDS = 180.0
"""That a piece of work may take, on a host that is busy."""
GONE_SECONDS = 30.0
"""In which all that a killed process had started has to end."""

_LOOK = 0.02
_context = multiprocessing.get_context("forkserver")
# Google's library takes seconds to import: once, and not in each process that talks to a Compute Engine.
_context.set_forkserver_preload(["tests.trials.chaos.work", "google.cloud.compute_v1", "google.cloud.storage"])


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a piece of work ended: its exit status, and all that it said."""

    status: int | None
    said: str


@dataclass(slots=True)
class Cell:
    """A directory with a cache, a place for results and a working directory; `mark` is on all that runs for it.

    It may be on a disk of its own, which its work joins.
    """

    place: Path
    endpoint: str = ""
    disk: SmallDisk | None = None
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        for name in ("cache", "out", "cwd"):
            (self.seen / name).mkdir(parents=True)

    @property
    def seen(self) -> Path:
        """The directory for this process, which has joined no disk."""
        return self.place if self.disk is None else self.disk.seen

    def order(self, piece: str, **options: Any) -> Order:
        """Return an order of a piece of work here."""
        return Order(
            work=piece,
            place=self.place,
            mark=self.mark,
            endpoint=self.endpoint,
            holder=0 if self.disk is None else self.disk.holder.pid,
            token=tokens.find(self.endpoint),
            **options,
        )

    def run(
        self,
        order: Order,
        at_moment: Callable[[int], None] | None = None,
        *,
        begun: Callable[[int], None] = lambda _: None,
    ) -> End:
        """Do a piece of work to its end; when it stands still at its moment, `at_moment` gets the process's number.

        `begun` gets it at once.
        """
        order.said.write_bytes(b"")
        ours, theirs = _context.Pipe()
        with ours, theirs:
            process = _context.Process(target=work.main, args=(order, theirs))
            process.start()
            theirs.close()
            assert process.pid is not None
            begun(process.pid)
            try:
                self._follow(process, ours, at_moment)
                process.join(SECONDS)
                assert process.exitcode is not None, f"it does not end: {self.said}"
            finally:
                process.kill()
                process.join()
        return End(status=process.exitcode, said=self.said)

    def _follow(self, process: Any, pipe: Any, at_moment: Callable[[int], None] | None) -> None:
        end = time.monotonic() + SECONDS
        while process.is_alive():
            assert time.monotonic() < end, f"it does not end: {self.said}"
            with contextlib.suppress(EOFError, ConnectionResetError):
                if not pipe.poll(_LOOK):
                    continue
                assert (told := pipe.recv()) == "here", told
                assert at_moment is not None
                at_moment(process.pid)
                with contextlib.suppress(BrokenPipeError):
                    pipe.send("go on")
                continue
            return

    @property
    def said(self) -> str:
        """What it has said."""
        return self.order("").said.read_text(encoding="utf-8", errors="replace")

    def processes(self, part: str = "") -> dict[int, str]:
        """Return the command lines, with `part` in them, of the processes that were started for it."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if part in command:
                        found[int(process.name)] = command
        return found

    def nothing_runs(self) -> None:
        """Fail unless every process that was started for it ends soon, and with it its namespaces."""
        end = time.monotonic() + GONE_SECONDS
        while left := self.processes():
            assert time.monotonic() < end, f"still there: {left}"
            time.sleep(_LOOK)
        where = "self" if self.disk is None else self.disk.holder.pid
        mounts = Path(f"/proc/{where}/mountinfo").read_text(encoding="utf-8").splitlines()
        held = [line for line in mounts if f"{self.place}/" in line or " nsfs " in line]
        assert not held, held
        sockets = Path("/proc/net/unix").read_text(encoding="utf-8")
        assert str(self.place) not in sockets
        assert not [path for path in self.seen.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
        assert not list(self._locked())

    def _locked(self) -> Iterator[Path]:
        for path in [*(self.seen / "cache").rglob("*.lock"), *(self.seen / "cache").rglob("scratch-*")]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield path
            finally:
                os.close(descriptor)

    def half_made(self) -> list[str]:
        """Return what is there under a name that nobody asked for: scratch, and what was to be renamed."""
        found = []
        for path in self.seen.rglob("*"):
            name = path.name
            if path.suffix != ".lock" and (
                name.startswith((".machine-", ".next-", ".disk.raw.", ".image.tar", ".reference", "scratch-"))
                or name.endswith((".partial", ".building"))
            ):
                found.append(str(path.relative_to(self.seen)))
        return found

    def made(self) -> dict[str, str]:
        """Return digests of what was made under the names that were asked for."""
        wanted = [*(self.seen / "out").glob("[!.]*"), *(self.seen / "cache/images").glob("reference*/disk.raw")]
        return {path.name: digest(path) for path in wanted}


def ground(directory: Path) -> None:
    """Make in `directory` what all the work is done on."""
    work.prepare(directory)
    made = Cell(directory / "ground")
    assert made.run(made.order("build")).status == 0, made.said
    (made.place / "out/disk.raw").rename(directory / "disk.raw")


def digest(path: Path) -> str:
    """Return a digest of a file's content, without its holes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for offset, length in data_ranges(file.fileno(), path.stat().st_size):
            for place in range(offset, offset + length, 1 << 20):
                block = os.pread(file.fileno(), min(1 << 20, offset + length - place), place)
                if block.strip(b"\0"):
                    found.update(b"%d" % place + block)
    return found.hexdigest()


def writable_again(disk: SmallDisk) -> None:
    """Give the disk back what was taken from it: space, and that it can be written to."""
    disk.make_writable()
    (disk.seen / "filler").unlink(missing_ok=True)


def send(number: signal.Signals) -> Callable[[int], None]:
    """Return what sends a process a signal; one that was stopped goes on a moment later."""

    def now(pid: int) -> None:
        os.kill(pid, number)
        if number is signal.SIGSTOP:
            while "T" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]:
                time.sleep(_LOOK)
            os.kill(pid, signal.SIGCONT)
        elif number is signal.SIGKILL:
            while Path(f"/proc/{pid}").exists() and not _dead(pid):
                time.sleep(_LOOK)

    return now


def _dead(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    return True
