"""What a guest says in answer to questions, what was left of its boots, and what people see of both."""

import functools
import gzip
import io
import itertools
import json
import secrets
import socket
import tempfile
import threading
import tomllib
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import cast
from unittest import mock

from tests.trials.fuzz.limits import Parser
from tests.trials.fuzz.lines import answering, speaking
from vmtests import contract as contracts
from vmtests.boot import hang, skim
from vmtests.boot.replay import explain
from vmtests.boot.scanner import Scanner
from vmtests.boot.shape import Undress
from vmtests.cli.explain import chunks
from vmtests.cockpit import line as terminal
from vmtests.cockpit.attach import Server
from vmtests.cockpit.port import Cockpit
from vmtests.errors import GuestError, HostError, VmtestsError
from vmtests.guest import agent, inits, login, promises, wire
from vmtests.guest.facts import Facts
from vmtests.guest.login import Login
from vmtests.guest.result import Result
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import parse_host_keys
from vmtests.machine.qmp import forwarded_port
from vmtests.report import against, history, page, record, summary, trace
from vmtests.resources import fixture

_SECONDS = 30.0  # on a busy host; who is not heard hangs up sooner


def _wire(data: bytes) -> None:
    tag = wire.Nonce().tag if data[:1] == b"?" else "tag"
    rows = {int(match[1]): match[2] for match in wire.row_pattern(tag).finditer(data)}
    for line in data.split(b"\n"):
        wire.Short.parse(tag, line)
        if (match := wire.answer_pattern(tag).search(line)) is None:
            continue
        with suppress(ValueError):
            output = wire.Output.parse(match[1].decode("ascii").split()[:4])
            wire.decode(output, rows, 1 << 20)


_WIRE = [
    b"tag:0 \\ hello\\n \\ :15.\ntag:base64 5 3733573829 9:23.\ntag@0:aGVsbG8=:8.\n",
    b"tag:gzip -1 - -:13.\ntag@1:H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA==:36.\ntag@2:AAAA:4.\n",
    b"tag:hex 2 1 5:11.\ntag@0:6869:4.\n",
]


def _numbered() -> AbstractContextManager[object]:
    """Have what is drawn at random be numbers in a row, so that a guest's words can be answers."""
    numbers = itertools.count()
    return mock.patch.object(secrets, "token_hex", side_effect=lambda _: f"{next(numbers):012d}")


def _tag(first: int) -> bytes:
    return b"vm%012d%012d" % (first, first + 1)


def _said(tag: bytes, payload: bytes) -> bytes:
    """Return an answer of the guest's shell."""
    return b"\r\n%s:%s:%d.\r\n" % (tag, payload, len(payload))


def _serial(data: bytes) -> None:
    with _numbered(), speaking(data) as ours:
        shell = SerialShell(ours, answer_timeout=_SECONDS)
        shell.take_over()
        shell.run("true", timeout=_SECONDS)


# In the order in which a command's numbers are drawn.
_HINT, _GO, _STATE, _DUMP = map(_tag, (1, 3, 5, 7))


def _followed(state: bytes) -> bytes:
    """Return what a guest says of a command that writes more than fits in one answer."""
    row = _DUMP + b"@1:aGVsbG8=:8.\r\n"
    return b"\0".join((b"", _said(_GO, b"ok") + _HINT + b"\r\n", _said(_STATE, state), row + _said(_DUMP, b"1")))


_SERIAL = [
    b"\0" + _said(_GO, b"ok") + _said(_HINT, rb"0 \ hello\n \ a\cb"),
    _followed(b"end 0 base64 5 %d 9 none 0 - 0" % wire.cksum(b"aGVsbG8=\n")),
    _followed(b"end 1 base64 -1 - - hex 0 - -"),
]
_REFUSED = tuple(map(_followed, (b"big-o 7", b"gone 0", b"run 0", b"lost 0")))


def _login(data: bytes) -> None:
    at_once = mock.patch.object(login, "_QUIET", 0.001)
    with _numbered(), at_once, speaking(data) as ours:
        SerialShell(ours, answer_timeout=_SECONDS).login(Login(password="x"), timeout=_SECONDS)


def _answer(typed: bytes) -> bytes:
    """Return what a guest's shell says to what is typed at a login."""
    match typed.split():
        case [b"_vm", first, second, _, b"_vm_where", *_]:
            return _said(first + second, b"/run")
        case [b"_vm", first, second, _, b"_vm_put", _, number, *_]:
            return _said(first + second, number)
        case [b"_vm", first, second, _, *_]:
            return _said(first + second, b"lost 0")
        case [_, *_, first, second]:
            return b"\r\n" + first + second + b"\r\n"
        case _:
            return b"# " if typed else b""


@functools.cache
def _logins() -> list[bytes]:
    """Return what a guest says until its shell is at our service: at a getty, at a prompt, and in emergency mode."""
    told: list[bytes] = []

    def answer(typed: bytes) -> bytes:
        told.append(_answer(typed))
        return told[-1]

    with _numbered(), answering(answer) as ours:
        SerialShell(ours).login()
    ways = (
        (b"host login: ", b"Password: ", b"Last login: x\r\n# "),
        (b"# ",),
        (b"\r\nGive root password for maintenance\r\n(or press Control-D to continue): ", b"# "),
    )
    return [b"\0".join((b"", *way, *told[2:])) for way in ways]


def _agent(data: bytes) -> None:
    at_once = mock.patch.object(agent, "_LOOK_SECONDS", 0.0)
    with at_once, mock.patch.object(secrets, "randbits", return_value=7), speaking(data) as ours:
        asked = agent.Agent(ours, scale=_SECONDS / 20)
        asked.connect(_SECONDS)
        asked.run("true", timeout=_SECONDS)


_AGENT = [
    b'\xff{"return": 7}\n{"return": {"pid": 4}}\n{"return": {"exited": true, "exitcode": 0, "out-data": "aGk="}}\n',
    b'{"return": 7}\n{"return": {"pid": 4}}\n{"return": {"exited": true, "signal": 9, "err-data": "aGk="}}\n',
]
_DISABLED = b'{"return": 7}\n{"error": {"class": "GenericError", "desc": "disabled"}}\n'


_QUESTIONS = ("mountinfo", "list-units", "journalctl", "cmdline", "boot_id", "dump-db", "systemctl show", "lsblk")


class _Says:
    """A guest that answers each of `_QUESTIONS` with a text of its own, others with the last; `!` is a failure."""

    def __init__(self, data: bytes) -> None:
        self._texts = data.split(b"\0")

    def run(self, command: str, /) -> Result:
        number = next((at for at, word in enumerate(_QUESTIONS) if word in command), len(_QUESTIONS))
        text = self._texts[min(number, len(self._texts) - 1)]
        return Result.of(command, stdout=text, stderr=b"", exit_code=int(text[:1] == b"!"), duration=0.0)


def _facts(data: bytes) -> None:
    def asked(ask: Callable[..., object], *what: object) -> None:
        with suppress(VmtestsError):
            ask(*what)

    facts = Facts(_Says(data))
    for ask in (facts.mounts, facts.units, facts.journal, facts.cmdline, facts.boot_id, facts.valid_paths):
        asked(ask)
    for init in inits.INITS:
        asked(init.failed, _Says(data))
        asked(init.up, _Says(data))
        asked(init.service, _Says(data), "a")
    for contract in (contracts.default(), contracts.from_data(tomllib.loads(_PROMISES), "it")):
        asked(promises.broken, contract, _Says(data))
    asked(lambda: facts.mounts().top("/nix/store"))
    asked(lambda: parse_host_keys(data.decode("utf-8", "replace").splitlines()))


_PROMISES = """version = 1
[[partition]]
label = "a"
filesystem = "ext4"
[[mount]]
where = "/"
partition = "a"
options = ["rw"]
[units]
active = ["a"]
"""
_OVERLAY = "overlay overlay rw,lowerdir=/nix/.ro-store,upperdir=/nix/.rw-store/upper,workdir=/nix/.rw-store/work"
_MOUNTS = f"""36 35 98:1 / / rw,noatime master:1 - ext4 /dev/sda3 rw,errors=continue
37 36 98:2 / /nix/.ro-store ro shared:5 - erofs /dev/sda2 ro
38 36 0:31 / /nix/store rw shared:6 - {_OVERLAY}
39 38 0:31 / /nix/store ro,nosuid,nodev shared:7 - {_OVERLAY}
""".encode()
_UNITS = b'[{"unit":"multi-user.target","load":"loaded","active":"active","sub":"active","description":"x"}]'
_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBn0Y8nU3B2v1nGq1bqvJtC1hbkqk2o3v0S0T0xqHnJk host\n"
_FACTS = [
    b"\0".join((
        _MOUNTS,
        _UNITS,
        b'{"MESSAGE":[104,105],"_BOOT_ID":"1","__REALTIME_TIMESTAMP":"1","__MONOTONIC_TIMESTAMP":"1","A":[["x"]]}',
        b'root=LABEL=root ro "a=b c" init=/nix/store/x/init',
        b"0b0e1c32-2f0c-4f5c-8e6d-8d8a0f4b6c11",
        b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a\nsha256:00\n10\n\n1\n/nix/store/b\n",
        b"Id=a.service\nLoadState=loaded\nActiveState=active\nResult=success\nExecMainExitTimestampMonotonic=1\n",
        b'{"blockdevices": [{"name": "a", "kname": "a", "partlabel": "root", "children": [{"name": "b"}]}]}',
        _KEY,
    )),
    _KEY,
]  # fmt: skip


def _monitor(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    hang.parse_registers(text)
    hang.kernel_words(text.splitlines())
    with suppress(HostError):
        forwarded_port(lambda *_: text)


_MONITOR = [
    b"CPU#0\r\nRIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n",
    b"VLAN -1 (net0):\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 38035       10.0.2.15    22     0     0\r\n",
    b"[  1.0] sysrq: Show Blocked State\n[  1.0] task:a state:D stack:0 pid:1\n[  1.0] Call Trace:\n  foo+0x1/2\n",
]


def _recording(data: bytes) -> None:
    """Read a recording as `vmtests explain` does, with a middle that is passed over."""
    with mock.patch.object(skim, "ENDS", 1 << 10):
        explain(data[at : at + (1 << 10)] for at in range(0, len(data), 1 << 10))
    undress, scanner = Undress(), Scanner()
    for one in [*scanner.feed(data), *scanner.finish()]:
        undress.feed(one.text)
    undress.finish()


def _collected() -> list[bytes]:
    console = fixture("consoles/reference-ready.log").read_bytes()
    lines = console[:8000].decode("utf-8", "replace").splitlines()
    return [
        console[:30_000],
        "\n".join(f"2025-01-02T03:04:05.678+00:00 host kernel: {line}" for line in lines).encode(),
        "\n".join(json.dumps({"MESSAGE": line, "SYSLOG_IDENTIFIER": "systemd"}) for line in lines).encode(),
        "\n".join(f'time="2025-01-02T03:04:05Z" level=info msg={json.dumps(line)}' for line in lines).encode(),
        b"Linux version 6.12\nWelcome to GRUB\n" * 200,
    ]


def _packed(data: bytes) -> None:
    explain(chunks(io.BytesIO(data)))


def _packings() -> list[bytes]:
    """The ways in which a log is handed on."""
    log = fixture("consoles/fault-init-missing.log").read_bytes()[:8000]
    text = log.decode("utf-8", "replace")
    return [
        gzip.compress(log[:4000], mtime=0) + gzip.compress(log[4000:], mtime=0),
        text.encode("utf-16"),
        text.encode("utf-16-le"),
        json.dumps({"InstanceId": "i-0", "Output": text, "Timestamp": "2025-01-02T03:04:05Z"}).encode(),
        json.dumps({"contents": text, "next": "8000", "start": "0"}, indent=2).encode(),
        _RUN["journal.export"],
    ]


def _screen(data: bytes) -> None:
    screen = terminal.Screen()
    for at in range(0, len(data), 997):
        screen.feed(data[at : at + 997])
        for row in range(terminal.LINES):
            screen.row(row, cursor=True)
    screen.resize(1 + len(data) % 200, 1 + len(data) % 50)
    screen.row(0, cursor=True)


_SCREEN = [
    b"\x1b[2J\x1b[1;1H\x1b[31;42;1mhello\x1b[0m\r\n\x1b]0;title\x07\x1b[5;10r\x1b[38;5;196mred\x1b(0qqq\x1b(B",
    b"\x1b[?3h\x1b[10@\x1b[10P\x1b[10L\x1b[10M\x1b[10X\x1b[2K\x1bH\t\x1b[g\x1b7\x1b8\x1b[6n\x1b[c\x1bP+q\x1b\\",
    "\x1b[38;2;1;2;3m日本e\u0301".encode(),
]


class _Nobody:
    def __getattr__(self, name: str) -> Callable[..., object]:
        def refused(*_: object) -> object:
            raise GuestError(name)

        return refused


def _attached(data: bytes) -> None:
    """Ask a cockpit's server, as another process of this user would."""
    wrong: list[object] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        mock.patch.object(threading, "excepthook", wrong.append),
        Server(cast(Cockpit, _Nobody()), Path(directory)),
        socket.socket(socket.AF_UNIX) as ours,
    ):
        ours.connect(str(next(Path(directory).iterdir())))
        ours.settimeout(10.0)
        with suppress(OSError):
            ours.sendall(data[:65536])
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(1 << 16):
                pass
    assert not wrong, wrong


_ASKED = [
    b'{"what":"state","since":3}\n{"what":"ask","act":"go","word":"x"}\n',
    b'{"what":"take","way":"serial","columns":80,"lines":24}\n{"what":"x"}\n',
]

# The files of a run, of which one at a time is what somebody has changed.
_RUN = {
    "console.jsonl": b'{"boot":1,"t":0.5,"text":"Linux version 6.12","stage":"kernel","source":"console"}\n',
    "timeline.json": b'{"boot":1,"started":"2025-01-02T03:04:05Z","start":{"firmware":0.0,"kernel":1.0,"ready":2.0},'
    b'"seconds":{"firmware":1.0,"kernel":1.0},"units":[{"unit":"a.service","stage":"kernel","queued":0.1,"began":0.2,'
    b'"ended":1.5,"result":"done","waits_for":"b"}]}',
    "verdict.json": b'{"verdict":"failed","stage":"kernel","sentence":"no","hint":"h","cause":"kernel-panic",'
    b'"owner":"image","evidence":[{"t":1.0,"source":"console","text":"x"}],"seconds":{}}',
    "inspection.json": b'{"ok":true,"breaches":[],"notes":[],"partitions":[{"number":1,"label":"ESP","type":"esp",'
    b'"start":1048576,"size":1048576,"filesystem":"vfat"}],"boot":["a"],"checks":[{"subject":"a","status":"ok"}]}',
    "booted.json": b'{"image":"reference","machine":"q35","path":"/none"}',
    "junit.xml": b'<testsuites><testsuite><testcase classname="a.b" name="c" time="1.0">'
    b'<failure message="m">t</failure><properties><property name="vmtests.machine" value="vm"/></properties>'
    b"</testcase></testsuite></testsuites>",
    "mounts.json": b'[{"id":1,"parent":0,"device":"0:1","root":"/","target":"/","options":["rw"],"propagation":[],'
    b'"fstype":"overlay","source":"x","super_options":["lowerdir=/a","upperdir=/b","workdir=/c"]}]',
    "mountinfo.txt": _MOUNTS + b"40 36 0:9 / /nix/store rw - overlay o rw,lowerdir=/a:/b,upperdir=/c,workdir=/d\n",
    "journal.export": b"__REALTIME_TIMESTAMP=1735787045000000\n__MONOTONIC_TIMESTAMP=1000000\n_BOOT_ID=1\n_PID=1\n"
    b"MESSAGE_ID=39f53479d3a045ac8e11786248231fbf\nUNIT=a.service\nJOB_TYPE=start\nJOB_RESULT=done\nMESSAGE=x\n\n",
}


def _results(data: bytes) -> None:
    names = list(_RUN)
    name = names[data[0] % len(names)] if data else names[0]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "run")
        place.mkdir()
        for other, content in _RUN.items():
            if other != "mounts.json" or name != "mountinfo.txt":
                (place / other).write_bytes(data[1:] if other == name else content)
        with suppress(VmtestsError):
            run = record.read(place)
            page.render(run, run)
            against.compare(run, run)
            for boot in run.boots:
                json.dumps(trace.trace(boot))
        summary.markdown(place)
        with suppress(VmtestsError):
            trends = history.read(place.parent)
            history.slower(trends[0], history.Rule())


@functools.cache
def _runs() -> list[bytes]:
    return [bytes([number]) + content for number, content in enumerate(_RUN.values())]


GUESTS = {
    "serial answers": Parser(call=_wire, good=lambda: _WIRE),
    "serial shell": Parser(call=_serial, good=lambda: _SERIAL, found=_REFUSED, slow=True),
    "logins": Parser(call=_login, good=_logins, slow=True),
    "guest agent": Parser(call=_agent, good=lambda: _AGENT, found=(_DISABLED,), slow=True),
    "a guest's answers": Parser(call=_facts, good=lambda: _FACTS),
    "QEMU's monitor": Parser(call=_monitor, good=lambda: _MONITOR),
    "recordings": Parser(call=_recording, good=_collected),
    "packed recordings": Parser(call=_packed, good=_packings, may=(zlib.error,)),
    "terminal": Parser(call=_screen, good=lambda: _SCREEN),
    "attached": Parser(call=_attached, good=lambda: _ASKED, slow=True),
    "results": Parser(call=_results, good=_runs),
}
"""By what they read."""
