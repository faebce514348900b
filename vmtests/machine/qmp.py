"""QMP for code that is not asynchronous.

The `qemu.qmp` package does the protocol; its event loop runs in a thread of its own, and every call here
waits for it. A connection that is lost ends every wait at once.
"""

import asyncio
import concurrent.futures
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Self, TypeVar

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from vmtests.errors import HostError

CONNECT_SECONDS = 30.0
"""How long QEMU may take to greet; on a loaded host it maps its firmware for seconds."""

_CLOSE_SECONDS = 5.0
_FORWARD = re.compile(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\s")

_T = TypeVar("_T")


class QmpLostError(HostError):
    """The connection to QEMU's monitor is gone, most often because QEMU is."""


class QmpCommandError(HostError):
    """QEMU refused a command."""


class QmpTimeoutError(HostError):
    """QEMU did not answer in time."""


class _Sink(EventListener):
    """Hands events on in the loop's thread, in QEMU's order."""

    def __init__(self, client: QMPClient, on_event: Callable[[Message], None]) -> None:
        super().__init__()
        self._client = client
        self._on_event = on_event
        self._questions: set[asyncio.Task[None]] = set()

    async def put(self, event: Message) -> None:
        if event.get("event") != "STOP":
            self._on_event(event)
            return
        # The answer is read by the task that called us, so it has to go on.
        question = asyncio.create_task(self._stopped(event))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)

    async def _stopped(self, event: Message) -> None:
        """Say why the guest was stopped, which the event does not: a dead vCPU stops it too."""
        with contextlib.suppress(QMPError, EOFError, OSError):
            event["data"] = await self._client.execute("query-status")
        self._on_event(event)


class Qmp:
    """A connection to a QMP server over a socket that is connected already; a context manager.

    `on_event` is called in another thread, with the event as QEMU sent it (`event`, `data`, `timestamp`),
    and must not block. `STOP` gets what `query-status` says as its data.
    """

    def __init__(self, connection: socket.socket, on_event: Callable[[Message], None], *, name: str = "qemu") -> None:
        self._connection = connection
        self._client = QMPClient(name)
        # The library logs a lost connection with a traceback; here it is an exception, and often expected.
        self._client.logger.disabled = True
        self._client.register_listener(_Sink(self._client, on_event))
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"qmp-{name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._client.connect(self._connection), CONNECT_SECONDS, "the greeting")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> object:
        """Run a QMP command and return its value; `timeout` is in seconds.

        Raises QmpCommandError, QmpLostError or QmpTimeoutError.
        """
        return self._call(self._client.execute(command, arguments), timeout, command)

    def give(self, name: str, descriptor: int, *, timeout: float = 30.0) -> None:
        """Hand a file descriptor to QEMU, where commands know it as `name` (QMP's `getfd`).

        `timeout` is in seconds. Raises as `execute` does.
        """
        self._call(self._give(name, descriptor), timeout, "getfd")

    async def _give(self, name: str, descriptor: int) -> None:
        # It goes with a byte that is nothing in JSON, in the loop's thread: between two commands.
        socket.send_fds(self._connection, [b" "], [descriptor])
        await self._client.execute("getfd", {"fdname": name})

    def close(self) -> None:
        """Disconnect, end every wait with QmpLostError, and stop the thread."""
        with self._lock:
            # Whatever is in the loop by now is cancelled below, and nothing more gets into it.
            if self._closed:
                return
            self._closed = True
        if self._thread.is_alive():
            if self._client.runstate is not Runstate.IDLE:
                disconnecting = asyncio.run_coroutine_threadsafe(self._client.disconnect(), self._loop)
                with contextlib.suppress(QMPError, EOFError, OSError):
                    disconnecting.result(_CLOSE_SECONDS)
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(_CLOSE_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._connection.close()

    @staticmethod
    async def _cancel_all() -> None:
        """Cancel what still waits, so that no caller stays behind and no task is destroyed while pending."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _call(self, coroutine: Coroutine[object, object, _T], timeout: float, what: str) -> _T:
        with self._lock:
            if self._closed:
                coroutine.close()
                raise QmpLostError(f"QMP: {what}: the connection is closed")
            # The limit is kept in the loop, which also sees the cancelled call to its end.
            future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout), self._loop)
        try:
            return future.result()
        except ExecuteError as error:
            raise QmpCommandError(f"QMP: {what}: {error}") from error
        except TimeoutError as error:
            raise QmpTimeoutError(f"QMP: {what}: no answer in {timeout:g} s") from error
        except (QMPError, EOFError, OSError, concurrent.futures.CancelledError) as error:
            raise QmpLostError(f"QMP: {what}: the connection is lost") from error


def forwarded_port(execute: Callable[[str, Mapping[str, object]], object]) -> int:
    """Return the port on 127.0.0.1 that leads to the guest's port 22; raises HostError."""
    # QMP has no command for it that QEMU 10 is built with; the human monitor has.
    answer = execute("human-monitor-command", {"command-line": "info usernet"})
    if not (match := _FORWARD.search(str(answer))):
        raise HostError("QEMU does not say which port leads to the guest's ssh")
    return int(match[1])
