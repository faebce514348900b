"""The serial port of an instance, followed: polled, and stitched without gap or overlap.

Compute Engine keeps the last megabyte of each port. A position counts bytes since the instance was started;
`getSerialPortOutput` answers from a later one than it was asked for when what is between was dropped (`start` and
`next` of the API's reference). What it answers is text: a byte that is no UTF-8 has become U+FFFD, so positions are
counted by `next` alone.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vmtests.gce.errors import BusyError, CloudError, NotFoundError
from vmtests.machine.events import MachineEvent

GAP = "CONSOLE_GAP"
"""The name of the event that tells how many bytes of the console were lost."""

NOTICE = b"\r\n--- %d bytes of the console were lost here ---\r\n"
"""What stands in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a port: the positions of its first byte and of the one behind its last."""

    start: int
    next: int
    data: bytes


class Listener(Protocol):
    """Hears a port."""

    def feed(self, data: bytes, /) -> None:
        """Take bytes."""

    def event(self, event: MachineEvent, /) -> None:
        """Learn of a gap."""


class SerialReader:
    """Reads a port from where it was left; `fetch` gets what there is from a position on."""

    def __init__(self, fetch: Callable[[int], Chunk]) -> None:
        self._fetch = fetch
        self.position = 0

    def read(self) -> tuple[int, bytes]:
        """Return how many bytes were lost, and those that came since; raises CloudError."""
        chunk = self._fetch(self.position)
        if chunk.next < self.position:
            # The instance was started anew, and its port with it.
            self.position = 0
            chunk = self._fetch(0)
        lost = max(chunk.start - self.position, 0)
        data = chunk.data
        if chunk.start < self.position and chunk.next > self.position:
            # More was given than was asked for. Whoever counts characters is wrong where one was not UTF-8.
            data = data[-(chunk.next - self.position) :]
        elif chunk.next == self.position:
            data = b""
        self.position = max(chunk.next, self.position)
        return lost, data

    def restart(self) -> None:
        """Begin at the first byte again: the instance was stopped and is started."""
        self.position = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPace:
    """Seconds between two polls: of a port that talks, and of one that is quiet."""

    busy: float = 1.0
    quiet: float = 4.0


class SerialFollower:
    """Polls a port in a thread and tells a listener; a context manager.

    An API that refuses for a while is asked again, less often. `off` is called, in the thread, once for each time that
    the instance is found not to run, until `resume`. `wait` waits for some seconds, or for an event, and says whether
    that came.
    """

    def __init__(
        self,
        reader: SerialReader,
        listener: Listener,
        off: Callable[[], None],
        pace: PollPace | None = None,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._reader = reader
        self._listener = listener
        self._off = off
        self._pace = pace or PollPace()
        self._wait = wait
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._paused = False
        self.deaf: CloudError | None = None
        """Why the port could not be read when it was last polled; None when it could."""
        self._thread = threading.Thread(target=self._run, name="serial-port", daemon=True)

    def __enter__(self) -> "SerialFollower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def drain(self) -> None:
        """Take what there is now; raises CloudError, BusyError when the instance does not run."""
        with self._turn:
            self._take()

    def pause(self) -> None:
        """Ask no more until `resume`: the instance is off."""
        with self._turn:
            self._paused = True

    def resume(self, *, restarted: bool = False) -> None:
        """Go on; from the first byte when the instance was stopped and is started again."""
        with self._turn:
            self._paused = False
            if restarted:
                self._reader.restart()

    def _take(self) -> bool:
        lost, data = self._reader.read()
        if lost:
            # Two halves of lines are no line, and whoever reads the console has to know.
            self._listener.feed(NOTICE % lost)
            self._listener.event(MachineEvent(name=GAP, detail={"lost_bytes": lost}, t=time.monotonic()))
        if data:
            self._listener.feed(data)
        return bool(data)

    def _run(self) -> None:
        pause = self._pace.busy
        while not self._wait(self._ended, pause):
            off = False
            with self._turn:
                if self._paused:
                    continue
                try:
                    pause = self._pace.busy if self._take() else min(1.5 * pause, self._pace.quiet)
                    self.deaf = None
                except (BusyError, NotFoundError):
                    self._paused = off = True
                except CloudError as error:
                    pause, self.deaf = 2 * self._pace.quiet, error
            if off:
                self._off()
