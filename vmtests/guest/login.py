"""Finding a shell on a serial line, whatever is on it."""

import re
import time

from vmtests.errors import GuestError
from vmtests.guest.line import SerialLine
from vmtests.guest.wire import Nonce, pauses

_LOGIN = re.compile(rb"(?<!Last )login: ?$")
_PASSWORD = re.compile(rb"(?:[Pp]assword: ?|press Control-D to continue\): ?)$")
_PRESS_ENTER = re.compile(rb"Press Enter [a-z ]{1,40}[.:]? ?$")
_LOCKED = b"Cannot open access to console, the root account is locked"
# A prompt, perhaps followed by what sets colours, the title and bracketed paste (ECMA-48, xterm's ctlseqs).
_PROMPT = re.compile(rb"[#$](?: |\x1b\[[0-9;?]{0,16}[A-Za-z]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\))*$")

_QUIET = 0.1  # seconds after which a line without an end is taken for a prompt
_REFUSALS = 3


def find_shell(serial: SerialLine, user: str, password: str | None, deadline: float) -> None:
    """Get to a shell that runs what is typed; GuestError when `time.monotonic()` passes the deadline."""
    nonce, poke = Nonce(), pauses()
    probe = "printf '\\n%s%s\\n' {} {}\n".format(*nonce.halves).encode()
    replied = -1  # what the line had written when it last got a reply: a prompt is answered once
    refusals = 0
    serial.send(b"\n")
    silent_since = time.monotonic()
    patience = next(poke)
    while time.monotonic() < deadline:
        line = serial.read_line(min(_QUIET, deadline - time.monotonic()))
        if line is not None:
            silent_since = time.monotonic()
            if nonce.tag.encode() in line:
                return
            if _LOCKED in line:
                raise GuestError(
                    "the guest is in emergency mode, and its root account is locked",
                    hint="SYSTEMD_SULOGIN_FORCE=1 on the kernel's command line gives a shell",
                )
            if b"Login incorrect" in line and (refusals := refusals + 1) >= _REFUSALS:
                raise GuestError(f"the guest refused the login of {user!r} {refusals} times")
            continue
        tail, received = serial.partial, serial.received
        reply = _reply(tail, user, password, probe) if received != replied else None
        if reply is None and time.monotonic() - silent_since >= patience:
            reply = b"\x03\n" + probe if _LOGIN.search(tail) is None else b"\n"
            patience = next(poke)
        if reply is not None:
            serial.send(reply)
            replied, silent_since = received, time.monotonic()
    raise GuestError(f"no shell on the serial line in time; its last words were {serial.last!r}")


def _reply(tail: bytes, user: str, password: str | None, probe: bytes) -> bytes | None:
    """Return what is to be typed at the prompt that `tail` ends with, or None where it is no prompt."""
    if _LOGIN.search(tail):
        return f"{user}\n".encode()
    if _PASSWORD.search(tail):
        # An empty password makes a getty ask for the name again, should the probe have been taken for one.
        return f"{password or ''}\n".encode()
    if _PRESS_ENTER.search(tail):
        return b"\n"
    return probe if _PROMPT.search(tail) else None
