"""A machine at hand in another process: served on a socket that only this user reaches, and found by it.

Each connection begins with one line of JSON. `state` is answered by the states that follow, one for each further line;
`ask` by one answer; `take` by one answer and then the line itself, byte for byte, until either side closes.
"""

import contextlib
import os
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from vmtests.cockpit import runtime
from vmtests.cockpit.port import Act, Cockpit, State, Taken, Way, Wire
from vmtests.errors import GuestError, HostError, InputError, VmtestsError

_NAME = "attach.sock"
_READ = 64 << 10
_LINE = 64 << 20  # bytes of an answer
_ASKING = 4096  # bytes of a question
_SECONDS = 10.0

T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A question: `what` is `state`, `ask` or `take`; the rest as `Cockpit` has it."""

    what: str
    since: int = 0
    act: str = ""
    word: str = ""
    way: str = ""
    columns: int = 80
    lines: int = 24


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it: a state, a sentence, what a line had said last, or an error and its hint."""

    state: State | None = None
    says: str = ""
    said: bytes = b""
    error: str = ""
    hint: str | None = None


class Server:
    """Serves `cockpit` in `directory`, which is this user's alone; a context manager."""

    def __init__(self, cockpit: Cockpit, directory: Path) -> None:
        self._cockpit = cockpit
        self._listening = socket.socket(socket.AF_UNIX)
        path = directory / _NAME
        try:
            self._listening.bind(os.fspath(path))
        except OSError as error:
            self._listening.close()
            raise HostError(f"{path} cannot be made: {error.strerror}", hint="set XDG_RUNTIME_DIR") from error
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._serve, name="attach", daemon=True)

    def __enter__(self) -> Self:
        self._listening.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._meet, args=(connection,), name="attached", daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as questions:
            while line := questions.readline(_ASKING):
                try:
                    question = msgspec.json.decode(line, type=Ask)
                    taken, answer = self._answer(question)
                except VmtestsError as error:
                    taken, answer = None, Answer(error=error.message, hint=error.hint)
                except (msgspec.DecodeError, ValueError, RecursionError) as error:
                    taken, answer = None, Answer(error=f"what is asked is not understood: {error}")
                _send(connection, answer)
                if taken is not None:
                    _join(connection, taken)
                    break
        self._connections.discard(connection)

    def _answer(self, ask: Ask) -> tuple[Taken | None, Answer]:
        match ask.what:
            case "state":
                return None, Answer(state=self._cockpit.state(ask.since))
            case "ask":
                return None, Answer(says=self._cockpit.ask(Act(ask.act), ask.word).result())
            case "take":
                taken = self._cockpit.take(Way(ask.way), ask.columns, ask.lines).result()
                return taken, Answer(said=taken.said)
        raise ValueError(ask.what)


def _send(connection: socket.socket, answer: Answer) -> None:
    connection.sendall(msgspec.json.encode(answer) + b"\n")


def _join(connection: socket.socket, taken: Taken) -> None:
    """Carry bytes both ways until one side ends, and give the line back."""

    def out() -> None:
        with contextlib.suppress(OSError):
            while data := taken.wire.recv(_READ):
                connection.sendall(data)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=out, name="attached-out", daemon=True)
    thread.start()
    with contextlib.suppress(OSError):
        while data := connection.recv(_READ):
            taken.wire.sendall(data)
    taken.give_back()
    thread.join()


class Attached:
    """A `Cockpit` that is in another process, by the path of its socket; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = _connect(path)
        self._reader = self._connection.makefile("rb")
        self._pool = ThreadPoolExecutor(4)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._connection.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def state(self, since: int, /) -> State:
        """Return what is to be shown; raises HostError when the other process is gone."""
        with self._lock:
            answer = _ask(self._connection, self._reader, Ask(what="state", since=since))
        assert answer.state is not None
        return answer.state

    def ask(self, act: Act, word: str = "", /) -> Future[str]:
        """Have the other process do something."""
        return self._pool.submit(self._asked, Ask(what="ask", act=act, word=word))

    def take(self, way: Way, columns: int, lines: int, /) -> Future[Taken]:
        """Take a line of the other process's machine."""
        return self._pool.submit(self._taken, Ask(what="take", way=way, columns=columns, lines=lines))

    def _asked(self, question: Ask) -> str:
        with _connect(self._path) as connection, connection.makefile("rb") as reader:
            connection.settimeout(None)  # to keep a machine takes what it takes
            return _ask(connection, reader, question).says

    def _taken(self, question: Ask) -> Taken:
        connection = _connect(self._path)
        connection.settimeout(None)
        try:
            # Unbuffered: what comes behind the answer is the line's.
            with connection.makefile("rb", buffering=0) as reader:
                answer = _ask(connection, reader, question)
        except BaseException:
            connection.close()
            raise

        def give_back() -> None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        wire: Wire = connection
        return Taken(said=answer.said, wire=wire, give_back=give_back)


def _connect(path: Path) -> socket.socket:
    """Connect to a boot; one that is stopped answers no more, and is not waited for."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        raise HostError("the boot that was attached to has ended") from error
    return connection


def _ask(connection: socket.socket, reader: Any, question: Ask) -> Answer:
    try:
        connection.sendall(msgspec.json.encode(question) + b"\n")
        answer = msgspec.json.decode(reader.readline(_LINE), type=Answer)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError("the boot that was attached to has ended") from error
    if answer.error:
        raise GuestError(answer.error, hint=answer.hint)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A boot that can be attached to: its socket, its name, and where it is."""

    path: Path
    name: str
    state: State


def running() -> list[Running]:
    """Return the boots of this user that can be attached to; raises HostError."""
    found = []
    for path in sorted(runtime.base(make=False).glob(f"*/{_NAME}")):
        try:
            with Attached(path) as attached:
                state = attached.state(1 << 62)
        except HostError:
            continue  # it was killed, and the next one removes what it left
        found.append(Running(path=path, name=Path(state.results).name, state=state))
    return found


def choose(name: str | None) -> Path:
    """Return the socket of the boot that is called so, or of the only one; raises InputError."""
    boots = running()
    chosen = [boot for boot in boots if name is None or boot.name == name]
    if len(chosen) == 1:
        return chosen[0].path
    told = "; ".join(f"{boot.name} ({boot.state.title}, {boot.state.stage})" for boot in boots)
    if not boots:
        raise InputError("no boot can be attached to", hint="`vmtests boot IMAGE`, by this user, is one while it runs")
    if not chosen:
        raise InputError(f"no boot is called {name!r}", hint=f"there are: {told}")
    raise InputError(f"{len(chosen)} boots can be attached to", hint=f"name one: {told}")
