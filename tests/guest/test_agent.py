"""Commands through QEMU's guest agent, by a stand-in that speaks its language."""

import base64
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from vmtests.errors import GuestError
from vmtests.guest.agent import Agent
from vmtests.guest.result import GuestTimeout


class Stub:
    """Answers as qga/commands.c does: what it runs, it runs here."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.refuses = False
        threading.Thread(target=self._serve, daemon=True).start()

    def end(self) -> None:
        """End what still runs."""
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
                process.communicate()

    def _serve(self) -> None:
        self._line.sendall(b'{"return": {"version": "8"}}\nno JSON\n')  # for whoever asked before
        with self._line.makefile("rb") as lines:
            for line in lines:
                question = json.loads(line.rpartition(b"\xff")[2])
                answer = self._answer(question["execute"], question.get("arguments", {}))
                mark = b"\xff" if question["execute"] == "guest-sync-delimited" else b""
                self._line.sendall(mark + json.dumps(answer).encode() + b"\n")

    def _answer(self, command: str, asked: dict[str, Any]) -> dict[str, Any]:
        if command == "guest-sync-delimited":
            return {"return": asked["id"]}
        if self.refuses:
            return {"error": {"class": "CommandNotFound", "desc": f"Command {command} has been disabled"}}
        if command == "guest-exec":
            pipe = subprocess.PIPE
            process = subprocess.Popen([asked["path"], *asked["arg"]], stdin=pipe, stdout=pipe, stderr=pipe)
            self._running[process.pid] = process
            process.stdin.write(base64.b64decode(asked.get("input-data", "")))  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
            process.stdin = None
            return {"return": {"pid": process.pid}}
        process = self._running[asked["pid"]]
        if process.poll() is None:
            return {"return": {"exited": False}}
        out, err = process.communicate()
        end = {"signal": -process.returncode} if process.returncode < 0 else {"exitcode": process.returncode}
        data = {"out-data": base64.b64encode(out).decode(), "err-data": base64.b64encode(err).decode()}
        return {"return": {"exited": True, **end, **data}}


@pytest.fixture
def pair() -> Iterator[tuple[Agent, Stub]]:
    """An agent, and who is behind its port."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stub = Stub(theirs)
        yield Agent(ours, scale=1.0), stub
        stub.end()


def test_commands(pair: tuple[Agent, Stub]) -> None:
    """Outputs, standard input, exit codes and signals come as by every other way."""
    agent, _ = pair
    agent.connect(5)
    result = agent.run("cat; echo no >&2; exit 3", stdin=b"a\0\xff")
    assert (b"a\0\xff", "no\n", 3) == (result.stdout_bytes, result.stderr, result.exit_code)
    assert agent.run("kill -9 $$").exit_code == 137


def test_command_that_does_not_end_is_ended(pair: tuple[Agent, Stub]) -> None:
    """It is a timeout, and the agent goes on answering."""
    agent, _ = pair
    agent.connect(5)
    with pytest.raises(GuestTimeout):
        agent.run("exec sleep 60", timeout=0.1)
    assert agent.run("echo x").lines == ["x"]


def test_agent_that_may_run_nothing(pair: tuple[Agent, Stub]) -> None:
    """A refusal is one sentence with the agent's own words."""
    agent, stub = pair
    agent.connect(5)
    stub.refuses = True
    with pytest.raises(GuestError, match="refuses guest-exec: Command guest-exec has been disabled"):
        agent.run("true")


def test_nobody_is_behind_the_port() -> None:
    """Without an agent it is known after the time that was given."""
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(GuestError, match="no guest agent answers"):
        Agent(ours, scale=1.0).connect(0.05)
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(GuestError, match="port is closed"):
        Agent(ours, scale=1.0).connect(5)


def test_answer_that_comes_late_is_not_taken_for_the_next() -> None:
    """After one that was not waited for the agent is asked where it is."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs.makefile("rb") as lines:
            for number, line in enumerate(lines):
                question = json.loads(line.rpartition(b"\xff")[2])
                if number == 0:
                    waited.wait(20)  # and answers when nobody listens any more
                if question["execute"] == "guest-sync-delimited":
                    answer: dict[str, Any] = {"return": question["arguments"]["id"]}
                elif question["execute"] == "guest-exec":
                    answer = {"return": {"pid": number + 100}}
                else:
                    text = base64.b64encode(f"of {question['arguments']['pid']}".encode()).decode()
                    answer = {"return": {"exited": True, "exitcode": 0, "out-data": text}}
                mark = b"\xff" if question["execute"] == "guest-sync-delimited" else b""
                theirs.sendall(mark + json.dumps(answer).encode() + b"\n")

    waited = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    with ours, theirs:
        agent = Agent(ours, scale=0.02)
        with pytest.raises(GuestError, match="does not answer"):
            agent.run("one")
        waited.set()
        agent._seconds = 20.0
        assert agent.run("two").stdout == "of 102"
        theirs.shutdown(socket.SHUT_RDWR)
    server.join()


def test_agent_that_does_not_read_is_waited_for_as_long_as_one_that_does_not_answer() -> None:
    """What does not go into the port is not sent for ever."""
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(GuestError, match="does not read what it is sent"):
        Agent(ours, scale=0.02).run("cat", stdin=bytes(4 << 20))


@pytest.mark.parametrize(
    "said",
    [b'{"return": {"pid": "x"}}\n', b'{"return": {"pid": 1}}\n{"return": {"exited": true, "exitcode": [1]}}\n',
     b'{"return": {"pid": 1}}\n{"return": {"exited": true, "signal": {}}}\n', b'{"a":' + b"[" * 100_000 + b"\n"],
    ids=["pid", "exit code", "signal", "deep"],
)  # fmt: skip
def test_agent_that_says_nonsense_is_an_error_of_the_guest(said: bytes) -> None:
    """What a guest answers is anything: where a number belongs, and as deep as it likes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(GuestError):
            Agent(ours, scale=0.01).run("true")
