"""Threads on a host that has no memory left.

One that finds none to begin with dies before its first line. `threading.Thread.start` waits for that line, for ever
(CPython 3.11).
"""

import _thread
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

_LOOK_SECONDS = 0.1
_NO_MEMORY = b"vmtests: this host has no memory left\nhint: fewer things at once, or a smaller machine\n"  # as of_host
_EXIT_CODE = 2  # as of a HostError


def begin(
    run: Callable[[], object], begun: threading.Event, start: Callable[[Callable[[], object]], Any] | None = None
) -> Any:
    """Have `run` called in a thread, and return what `start` does when `begun` is set in it.

    Raises MemoryError where the thread dies before, and what `start` raises (`_thread.start_new_thread` is the
    default).
    """
    held = functools.partial(run)
    # The thread holds it until it ends: nothing else is known of one that runs no line.
    lives = weakref.ref(held)
    started = start(held) if start else _thread.start_new_thread(held, ())
    del held
    while not begun.wait(_LOOK_SECONDS):
        if lives() is None and not begun.is_set():
            raise MemoryError
    return started


def heed() -> None:
    """Have all threads of this process begun so; one that finds no memory just after it has begun ends the process.

    At once, as by kill -9, since nobody would be told: what was started ends with us, and the next run removes what is
    left.
    """
    for name in ("start_new_thread", "start_joinable_thread"):  # the latter since Python 3.13
        real = getattr(threading, f"_{name}", None)
        if real is getattr(_thread, name, None) and callable(real):
            setattr(threading, f"_{name}", functools.partial(_begin, real))


def _begin(real: Callable[..., Any], bootstrap: Any, *arguments: Any, **options: Any) -> Any:
    begun = bootstrap.__self__._started  # noqa: SLF001 - what Thread.start waits for
    live = functools.partial(_live, bootstrap, begun)
    return begin(live, begun, lambda run: real(run, *arguments, **options))


def _live(bootstrap: Callable[[], object], begun: threading.Event) -> None:
    try:
        bootstrap()
    except Exception as error:
        # It leaves a list in which it is not yet, and fails of that.
        if not isinstance(error, MemoryError) and not isinstance(error.__context__, MemoryError):
            raise
        if begun.is_set():
            try:
                os.write(2, _NO_MEMORY)
            finally:
                os._exit(_EXIT_CODE)
