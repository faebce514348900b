"""QMP, against a server in this process."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vmtests.machine import qmp
from vmtests.machine.qmp import Qmp, QmpCommandError, QmpLostError, QmpTimeoutError

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}}
Pair = tuple[socket.socket, socket.socket]


class Server:
    """Greets, and answers each command by a function; None hangs up."""

    def __init__(self, end: socket.socket) -> None:
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: {"return": {}}
        self._end = end
        self._thread = threading.Thread(target=self._serve)

    def say(self, message: object) -> None:
        """Send one message."""
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def start(self) -> None:
        """Serve until the client hangs up."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up and end."""
        with contextlib.suppress(OSError):  # the client was first
            self._end.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        self.say(GREETING)
        text = ""
        while data := self._end.recv(65536):
            text += data.decode()
            request, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            reply = self.answer(request)
            if reply is None:
                self._end.shutdown(socket.SHUT_RDWR)
                return
            if reply:
                self.say({**reply, "id": request["id"]} if "id" in request else reply)


@pytest.fixture
def server(pair: Pair) -> Iterator[Server]:
    """A server that answers everything with an empty object."""
    pair[1].settimeout(None)
    serving = Server(pair[1])
    serving.start()
    yield serving
    serving.stop()


def ignore(_: object) -> None:
    """Take no notice of an event."""


def test_answer(server: Server, pair: Pair) -> None:
    """A command's value is returned."""
    with Qmp(pair[0], ignore) as monitor:
        server.answer = lambda request: {"return": [request["execute"], request["arguments"]]}
        assert monitor.execute("stop", {"a": 1}) == ["stop", {"a": 1}]


def test_refusal(server: Server, pair: Pair) -> None:
    """A command that QEMU refuses is an error with QEMU's words."""
    with Qmp(pair[0], ignore) as monitor:
        server.answer = lambda _: {"error": {"class": "GenericError", "desc": "no such node"}}
        with pytest.raises(QmpCommandError, match="QMP: eject: no such node"):
            monitor.execute("eject")


def test_hang_up(server: Server, pair: Pair) -> None:
    """A lost connection ends a wait at once, and every later call."""
    with Qmp(pair[0], ignore) as monitor:
        server.answer = lambda _: None
        with pytest.raises(QmpLostError, match="QMP: quit: the connection is lost"):
            monitor.execute("quit")
        with pytest.raises(QmpLostError):
            monitor.execute("query-status")


def test_time_limit(server: Server, pair: Pair) -> None:
    """A command that is not answered in time is an error of its own, and the connection goes on."""
    with Qmp(pair[0], ignore) as monitor:
        server.answer = lambda _: {}
        with pytest.raises(QmpTimeoutError, match=r"QMP: stop: no answer in 0\.05 s"):
            monitor.execute("stop", timeout=0.05)
        server.answer = lambda _: {"return": 1}
        assert monitor.execute("cont") == 1


def test_closed(server: Server, pair: Pair) -> None:
    """After close every call fails as one on a lost connection does."""
    with Qmp(pair[0], ignore) as monitor:
        pass
    with pytest.raises(QmpLostError, match="the connection is closed"):
        monitor.execute("cont")
    monitor.close()


def test_close_ends_a_wait(server: Server, pair: Pair) -> None:
    """Closing in one thread ends the wait of another."""
    asked, failed = threading.Event(), threading.Event()

    def never(_: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        return {}

    with Qmp(pair[0], ignore) as monitor:
        server.answer = never

        def wait() -> None:
            with pytest.raises(QmpLostError):
                monitor.execute("stop")
            failed.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert asked.wait(10)
    waiting.join(10)
    assert failed.is_set()


def test_events_in_order(server: Server, pair: Pair) -> None:
    """Events are handed on in the order in which they came."""
    heard: list[object] = []
    done = threading.Event()

    def hear(event: object) -> None:
        heard.append(event["event"])  # type: ignore[index]
        if len(heard) == 3:
            done.set()

    with Qmp(pair[0], hear):
        for name in ("RESUME", "RESET", "SHUTDOWN"):
            server.say({"event": name, "timestamp": {}})
        assert done.wait(10)
    assert heard == ["RESUME", "RESET", "SHUTDOWN"]


def test_no_greeting(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never greets is given up after the limit."""
    monkeypatch.setattr(qmp, "CONNECT_SECONDS", 0.05)
    with pytest.raises(QmpTimeoutError, match="the greeting"), Qmp(pair[0], ignore):
        pass


def test_no_server(pair: Pair) -> None:
    """A server that hangs up before it greets is a lost connection."""
    pair[1].close()
    with pytest.raises(QmpLostError, match="the greeting"), Qmp(pair[0], ignore):
        pass


def test_garbage(pair: Pair) -> None:
    """A server that does not speak QMP is a lost connection, not a traceback."""
    pair[1].sendall(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(QmpLostError, match="the greeting"), Qmp(pair[0], ignore):
        pass
