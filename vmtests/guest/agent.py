"""Commands through QEMU's guest agent, where it runs in the guest: JSON on a virtio port (qga/qapi-schema.json).

The agent answers one question at a time, each by a line. What it had been asked by somebody else before is told from
our answers by a number of our own, behind a byte that no JSON has (`guest-sync-delimited`).
"""

import base64
import binascii
import json
import secrets
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from vmtests.errors import GuestError
from vmtests.guest.result import OUTPUT_LIMIT, GuestTimeout, Result
from vmtests.text import printable

_MARK = b"\xff"
_LINE_LIMIT = 64 << 20  # bytes of an answer: outputs come whole, in base64
_LOOK_SECONDS = 0.1  # between two looks at a command, which the agent does not tell the end of
_ANSWER_SECONDS = 20.0
_STDIN_LIMIT = 32 << 20


class Agent:
    """The agent behind `line`, a socket on the virtio port; `scale` stretches what it gets to answer (1 for KVM).

    All methods raise GuestError, also for an agent that does not answer or refuses commands.
    """

    def __init__(self, line: socket.socket, *, scale: float) -> None:
        self._line = line
        self._seconds = _ANSWER_SECONDS * scale
        self._heard = bytearray()
        self._behind = False  # whether an answer may still come that nobody waits for

    def connect(self, timeout: float) -> None:
        """Find out whether an agent answers, for `timeout` seconds."""
        number = secrets.randbits(48)
        question = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        deadline = time.monotonic() + timeout
        self._send(_MARK + json.dumps(question).encode() + b"\n")
        while (line := self._read_line(deadline)) is not None:
            answer = _parsed(line.rpartition(_MARK)[2])
            if answer.get("return") == number:
                self._behind = False
                return
        raise GuestError("no guest agent answers on the machine's virtio port")

    def run(
        self, command: str, /, timeout: float = 120.0, *, stdin: bytes | None = None, limit: int = OUTPUT_LIMIT
    ) -> Result:
        """Run a shell command; raises GuestTimeout after `timeout` seconds, when its shell is killed."""
        if stdin is not None and len(stdin) > _STDIN_LIMIT:
            raise GuestError(f"a guest agent takes {_STDIN_LIMIT >> 20} MiB of standard input at most")
        started = time.monotonic()
        asked: dict[str, object] = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        if stdin:
            asked["input-data"] = base64.b64encode(stdin).decode()
        pid = _number(self._ask("guest-exec", asked).get("pid", 0))
        pause = _LOOK_SECONDS / 4
        while True:
            state = self._ask("guest-exec-status", {"pid": pid})
            if state.get("exited"):
                break
            if time.monotonic() - started > timeout:
                self._ask("guest-exec", {"path": "/bin/sh", "arg": ["-c", f"kill -9 {pid}"]})
                raise GuestTimeout(command, timeout)
            time.sleep(pause)
            pause = min(2 * pause, 10 * _LOOK_SECONDS)
        stdout, stderr = _decoded(state.get("out-data")), _decoded(state.get("err-data"))
        if max(len(stdout), len(stderr)) > limit or state.get("out-truncated") or state.get("err-truncated"):
            raise GuestError(f"{printable(command)!r} wrote more than is taken from a guest")
        code = _number(state["exitcode"]) if "exitcode" in state else 128 + _number(state.get("signal", 0))
        duration = time.monotonic() - started
        return Result.of(command, stdout=stdout, stderr=stderr, exit_code=code, duration=duration)

    def _ask(self, command: str, arguments: Mapping[str, object]) -> Mapping[str, Any]:
        if self._behind:
            self.connect(self._seconds)
        self._behind = True
        self._send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        line = self._read_line(time.monotonic() + self._seconds)
        if line is None:
            raise GuestError("the guest agent does not answer")
        self._behind = False
        answer = _parsed(line.rpartition(_MARK)[2])
        if "error" in answer:
            told = answer["error"].get("desc", "") if isinstance(answer["error"], dict) else answer["error"]
            raise GuestError(f"the guest agent refuses {command}: {printable(str(told))}")
        found = answer.get("return")
        return found if isinstance(found, dict) else {}

    def _send(self, data: bytes) -> None:
        try:
            self._line.settimeout(self._seconds)
            self._line.sendall(data)
        except TimeoutError as error:
            raise GuestError("the guest agent does not read what it is sent") from error
        except OSError as error:
            raise GuestError(f"the guest agent's port is closed: {error.strerror}") from error

    def _read_line(self, deadline: float) -> bytes | None:
        """Return the next line, without its end; None at the deadline."""
        while (end := self._heard.find(b"\n")) < 0:
            if len(self._heard) > _LINE_LIMIT:
                raise GuestError("the guest agent's answer has no end")
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._line], [], [], left)[0]:
                return None
            try:
                data = self._line.recv(1 << 16)
            except OSError as error:
                raise GuestError(f"the guest agent's port is closed: {error.strerror}") from error
            if not data:
                raise GuestError("the guest agent's port is closed: the machine is off")
            self._heard += data
        line = bytes(self._heard[:end])
        del self._heard[: end + 1]
        return line


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(said: object) -> int:
    if isinstance(said, int):
        return said
    raise GuestError(f"the guest agent says {printable(str(said))!r} where a number belongs")


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text or ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise GuestError("the guest agent's output is no base64") from error
