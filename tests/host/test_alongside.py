"""No work of another thread outlives what it was for, whenever the main thread is interrupted."""

import _thread
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from vmtests.host.alongside import alongside


@pytest.fixture
def interrupted() -> Iterator[None]:
    """SIGINT interrupts, whatever started this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Work:
    """Work that takes some time, and does something else first."""

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self.began = threading.Event()
        self.done = False
        self._first = first

    def __call__(self) -> int:
        self.began.set()
        self._first()
        hashlib.sha256(bytes(64 << 20))
        self.done = True
        return 7


def test_what_comes_of_it_is_told() -> None:
    """Who waits in the block has the result, or the error."""
    with alongside(_Work()) as seven, alongside(lambda: 1 // 0) as none:
        assert seven.result() == 7
        with pytest.raises(ZeroDivisionError):
            none.result()


def test_interrupt_while_the_thread_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs already, and nobody has been told of it: it is waited for all the same."""
    real, work = _thread.start_new_thread, _Work()

    def start(run: Callable[[], object], arguments: tuple[()]) -> None:
        real(run, arguments)
        work.began.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(_thread, "start_new_thread", start)
    with pytest.raises(KeyboardInterrupt), alongside(work):
        pass
    assert work.done


def test_thread_that_begins_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before the thread has run a line of it, the work is not begun any more."""
    late: list[Callable[[], object]] = []

    def start(run: Callable[[], object], _: tuple[()]) -> None:
        late.append(run)
        raise KeyboardInterrupt

    work = _Work()
    monkeypatch.setattr(_thread, "start_new_thread", start)
    with pytest.raises(KeyboardInterrupt), alongside(work):
        pass
    late[0]()
    assert not work.began.is_set()


def test_thread_that_dies_before_it_begins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is not done, and the block not entered."""
    work = _Work()
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)
    with pytest.raises(MemoryError), alongside(work):
        pytest.fail("the block was entered")
    assert not work.began.is_set()


@pytest.mark.usefixtures("interrupted")
def test_interrupt_while_its_end_is_waited_for() -> None:
    """However often: it is raised when the work is done."""
    waits = threading.Event()

    def interrupt() -> None:
        waits.wait()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    work = _Work(interrupt)
    with pytest.raises(KeyboardInterrupt), alongside(work):
        waits.set()
    assert work.done


@pytest.mark.usefixtures("interrupted")
def test_interrupt_while_it_is_told_to_end() -> None:
    """It is raised when the work is done, whatever it met."""
    work = _Work()
    with pytest.raises(KeyboardInterrupt), alongside(work, end=lambda: os.kill(os.getpid(), signal.SIGINT)):
        work.began.wait()
    assert work.done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
