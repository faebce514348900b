"""Work in threads of their own that never outlives the block it is for, whenever a signal comes.

An interrupt is raised anywhere in the main thread: also while it starts a thread, of which it knows nothing yet then
(`ThreadPoolExecutor` does not wait for such a one), and while it waits.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import TypeVar

from vmtests.host.threads import begin

T = TypeVar("T")


@contextlib.contextmanager
def alongside(work: Callable[[], T], end: Callable[[], object] = tuple) -> Iterator[Future[T]]:
    """Do `work` in a thread while the block runs; it has ended when the block has, or never begins.

    `end` tells work that goes on by itself to end, when the block does. An interrupt that comes while its end is
    waited for is raised after it. Raises MemoryError where it does not begin.
    """
    turn, begun, over = threading.Lock(), threading.Event(), threading.Event()
    came: Future[T] = Future()
    interrupt: KeyboardInterrupt | None = None

    def run() -> None:
        with turn:
            begun.set()
            if over.is_set():
                return
            try:
                came.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits raises it
                came.set_exception(error)

    try:
        begin(run, begun)
        yield came
    finally:
        while True:
            try:
                with _signals_wait():
                    if not over.is_set():
                        over.set()
                        end()
                    with turn:
                        break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Have signals that Python handles wait for the end of the block.

    One that came before it is raised at once, and so is the next while that is being caught (CPython looks for signals
    where a loop begins anew): both would have to come within microseconds.
    """
    came: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], object]] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
        for late in dict.fromkeys(came):
            before[late](late, None)
