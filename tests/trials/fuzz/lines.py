"""The near end of a line, at whose far end somebody says what a parser is to read."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar

_READ = 1 << 16
_TEXTS = 1000
_PATIENCE, _HURRIED = 5.0, 0.004  # seconds for which somebody waits to be heard before they hang up
_patience = ContextVar("_patience", default=_PATIENCE)


@contextmanager
def hurried() -> Iterator[None]:
    """Wait less: of many inputs most leave both ends waiting for each other. What is good may not be read then."""
    token = _patience.set(_HURRIED)
    try:
        yield
    finally:
        _patience.reset(token)


def speaking(data: bytes) -> AbstractContextManager[socket.socket]:
    """Give a socket whose other end says the first of the texts in `data`, and the next when it has heard something.

    Between the texts is a NUL. Behind the last, and where it is not heard, it hangs up.
    """
    texts = iter(data[:_READ].split(b"\0")[:_TEXTS])
    return answering(lambda _: next(texts, None))


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[socket.socket]:
    """Give a socket whose other end says the answer to nothing, then those to what it hears, until one is None."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(_patience.get())

    def speak() -> None:
        heard = b""
        with suppress(OSError):
            with suppress(TimeoutError):
                while (text := answer(heard)) is not None:
                    theirs.sendall(text)
                    if not (heard := theirs.recv(_READ)):
                        return
            theirs.shutdown(socket.SHUT_WR)
            theirs.settimeout(None)
            while theirs.recv(_READ):
                pass

    speaker = threading.Thread(target=speak)
    with theirs:
        with ours:
            speaker.start()
            yield ours
        # What waits to be read by us is not any more.
        with suppress(OSError):
            theirs.shutdown(socket.SHUT_RDWR)
        speaker.join()
