"""Stands in for QEMU: answers QMP, writes to its serial ports, and echoes what is typed.

`-name guest=refuse` ends it at once with an error; the QMP command `die` ends it with status 3. With
`-name guest=plays/DIRECTORY` each power-on prints the console that is the first file of the directory, and removes it;
with `FAKE_PLAYS` in the environment those in its `cold` or `incoming` are printed, and stay. With
`FAKE_QMP=BEHAVIOUR:COMMAND` it misbehaves when it is asked for that, or for `greeting`: `late`, `never`, `garbled`,
`binary`, `huge`, `error`, `hang-up`.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

args = sys.argv[2:]
played = itertools.count()
behaviour, _, misbehaves_at = os.environ.get("FAKE_QMP", "").partition(":")


def inherited(name: str) -> socket.socket:
    """Return the socket of a -chardev."""
    option = next(arg for arg in args if arg.startswith(f"socket,id={name},"))
    match = re.search(r"fd=(\d+)", option)
    assert match is not None
    return socket.socket(fileno=int(match[1]))


def echo(port: socket.socket) -> None:
    """Send back what is typed, in capitals."""
    while data := port.recv(4096):
        port.sendall(data.upper())


def console() -> bytes:
    """Return what the guest prints."""
    if kept := os.environ.get("FAKE_PLAYS"):
        return (Path(kept) / ("incoming" if "-incoming" in args else "cold") / str(next(played))).read_bytes()
    directory = args[args.index("-name") + 1].partition("guest=plays")[2]
    if not directory:
        return b"BdsDxe: starting\r\n"
    first = min(Path(directory).iterdir())
    text = first.read_bytes()
    first.unlink()
    return text


if "guest=refuse" in args:
    sys.exit("fake-qemu: -smp 900: \x1b[31mtoo many")

serial = [inherited("serial0"), inherited("serial1")]
for option in args:
    if log := re.search(r"logfile=([^,]+)", option):
        Path(log[1]).touch()
firmware = inherited("firmware")


def requests(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Read QMP messages, which come without newlines."""
    text = ""
    while data := connection.recv(4096):
        text += data.decode()
        while text.strip():
            try:
                request, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            yield request


with inherited("qmp") as connection:

    def say(message: object) -> None:
        """Send one QMP message."""
        connection.sendall((json.dumps(message) + "\n").encode())

    def misbehave() -> None:
        """Do what no QEMU should."""
        match behaviour:
            case "late":
                time.sleep(0.3)  # to be late is what is tried (tests/trials/chaos): no event would be
            case "never":
                threading.Event().wait()
            case "garbled":
                connection.sendall(b'{"return": }}{]\r\n"\n')
            case "binary":
                connection.sendall(b"\xff\xfe\x00" * 1000 + b"\n")
            case "huge":
                with contextlib.suppress(OSError):
                    connection.sendall(b'{"return": "' + b"x" * (32 << 20) + b'"}\n')
            case "hang-up":
                connection.shutdown(socket.SHUT_RDWR)
                threading.Event().wait()

    if misbehaves_at == "greeting":
        misbehave()
    say(
        {
            "QMP": {
                "version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""},
                "capabilities": [],
            }
        }
    )
    reply: object
    running = False
    for request in requests(connection):
        command, reply = request["execute"], {}
        if command == misbehaves_at and behaviour == "error":
            say({"error": {"class": "GenericError", "desc": "it does not want to"}, "id": request.get("id")})
            continue
        if command == misbehaves_at:
            misbehave()
        if command == "human-monitor-command":
            reply = "TCP[HOST_FORWARD]  13       127.0.0.1 40697      10.128.0.2    22     0     0\r\n"
        elif command == "query-status":
            stopped = "paused" if "FAKE_PLAYS" in os.environ else "internal-error"
            reply = {"status": "running" if running else stopped, "running": running}
        elif command == "cont":
            running = True
            firmware.sendall(b"SEC")
            serial[0].sendall(console())
            for port in serial:
                threading.Thread(target=echo, args=(port,), daemon=True).start()
        elif command == "die":
            serial[0].sendall(b"last words")
            sys.exit(3)
        elif command == "system_reset":
            say(
                {
                    "event": "RESET",
                    "data": {"guest": False, "reason": "host-qmp-system-reset"},
                    "timestamp": {},
                }
            )
        elif command == "migrate":
            Path(request["arguments"]["uri"].removeprefix("file:")).write_bytes(b"state")
        elif command == "query-migrate":
            reply = {"status": "completed"}
        elif command == "stop":
            running = False
            say({"event": "STOP", "timestamp": {}})
        elif command == "guest-reset":
            serial[0].sendall(b"reboot: Restarting system")
            say({"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}, "timestamp": {}})
        say({"return": reply, "id": request.get("id")})
