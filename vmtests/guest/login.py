"""Finding a shell on a serial line, whatever is on it, and typing at nothing that is not known to be one."""

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vmtests.errors import GuestError, InputError
from vmtests.guest.wire import Nonce, pauses
from vmtests.text import printable

if TYPE_CHECKING:
    from vmtests.guest.line import SerialLine

SEEN = 8192
"""Bytes of what a line has written that tell what is on it now."""

_LOGIN = re.compile(rb"(?<!Last )login: ?$")
_PASSWORD = re.compile(rb"[Pp]assword: ?$")
# sulogin's second line, of util-linux, sysvinit and busybox; the first asks for root's password, or for Enter alone.
_MAINTENANCE = re.compile(rb"\(or (?:press|type) Control-D (?:to continue|for normal startup)\): ?$")
_ROOT_PASSWORD = re.compile(rb"root password|[Pp]ress [Ee]nter")
_PRESS_ENTER = re.compile(rb"Press Enter [a-z ]{1,40}[.:]? ?$")
_LOCKED = b"Cannot open access to console, the root account is locked"
# A prompt, perhaps followed by what sets colours, the title and bracketed paste (ECMA-48, xterm's ctlseqs).
_PROMPT = re.compile(rb"[#$](?: |\x1b\[[0-9;?]{0,16}[A-Za-z]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\))*$")

# What is asked for by somebody else, also where a kernel's message came behind it: systemd's ask-password-api.c,
# firstboot.c and homed, cryptsetup, plymouth, dracut's and initramfs-tools' prompts, fsck, debconf.
_STRANGE = re.compile(
    rb"[Pp]assphrase|recovery key|\bPIN\b|[Pp]assword for |press TAB for no echo|[Pp]ress any key"
    rb"|[Pp]lease (?:enter|configure|select|choose|type)|Enter [a-z ]{1,40} to continue"
    rb"|\[[yY]/[nN]\]|\([yY]/[nN]\)|<y>"
)
# The last one counts; a message of the kernel may have come behind it.
_SIGNS = re.compile(
    rb"(?P<login>(?<!Last )\blogin: )|(?P<shell>^[^\n]{0,80}[#$] )"
    rb"|(?P<enter>Press Enter [a-z ]{1,40}|Control-D (?:to continue|for normal startup))|(?P<strange>"
    + _STRANGE.pattern
    + rb")",
    re.MULTILINE,
)

_QUIET = 0.1  # seconds after which a line without an end is taken for a prompt
_REFUSALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who logs in where credentials give no way in: `password` on the serial line and over ssh, `key` over ssh."""

    user: str = "root"
    password: str | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, text: str, key: Path | None = None) -> Self:
        """Read `USER` or `USER:PASSWORD`; raises InputError."""
        user, colon, password = text.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", user) or "\n" in password:
            raise InputError("a login is USER or USER:PASSWORD", hint="as in root:secret, debian")
        if key is not None and not key.is_file():
            raise InputError(f"{key} is no file with a private key")
        return cls(user=user, password=password if colon else None, key=None if key is None else key.absolute())


class Prompt(StrEnum):
    """What a line waits for, by the last that it wrote."""

    LOGIN = "login"
    SHELL = "shell"
    ENTER = "enter"
    STRANGE = "strange"
    NONE = "none"


def prompt(seen: bytes) -> Prompt:
    """Return what a line waits for that wrote `seen`; nothing is to be typed at what is `STRANGE` or `NONE`."""
    last = Prompt.NONE
    for match in _SIGNS.finditer(seen[-SEEN:].replace(b"\r", b"\n")):
        last = Prompt(match.lastgroup or Prompt.NONE)
    return last


def find_shell(
    serial: "SerialLine",
    user: str,
    password: str | None,
    deadline: float,
    *,
    seen: bytes | None = None,
    grace: float = 0.0,
) -> None:
    """Get to a shell that runs what is typed; GuestError when `time.monotonic()` passes the deadline.

    Where `seen` is what the line has written before, nobody knows what is on it: then nothing is typed but at a login
    prompt and at a shell's, and GuestError is raised after `grace` seconds without either, or while somebody else asks
    for something. Otherwise it is a shell's, and what runs in it is interrupted.
    """
    nonce, poke = Nonce(), pauses()
    probe = "printf '\\n%s%s\\n' {} {}\n".format(*nonce.halves).encode()
    replied = -1  # what the line had written when it last got a reply: a prompt is answered once
    refusals, named = 0, False
    careful, before = seen is not None, bytearray(seen or b"")
    if not careful:
        serial.send(b"\n")
    silent_since = started = time.monotonic()
    patience = next(poke)
    while time.monotonic() < deadline:
        line = serial.read_line(min(_QUIET, deadline - time.monotonic()))
        if line is not None:
            silent_since = time.monotonic()
            before += line + b"\n"
            del before[: -2 * SEEN]
            if nonce.tag.encode() in line:
                return
            if _LOCKED in line:
                raise GuestError(
                    "the guest is in emergency mode, and its root account is locked",
                    hint="SYSTEMD_SULOGIN_FORCE=1 on the kernel's command line gives a shell",
                )
            if b"Login incorrect" in line and (refusals := refusals + 1) >= _REFUSALS:
                raise GuestError(f"the guest refused the login of {user!r} {refusals} times")
            if b"Login incorrect" in line and careful and password is None:
                raise _has_password(user)
            continue
        received = serial.received
        # What came before this line was listened to counts until something else comes.
        tail = serial.partial if received or not careful else bytes(before).rpartition(b"\n")[2]
        now = prompt(bytes(before) + serial.partial)
        if careful and now is Prompt.STRANGE and time.monotonic() - started > grace:
            words = serial.partial.strip() or bytes(before).strip().rpartition(b"\n")[2]
            said = printable(words.decode(errors="replace"))
            raise GuestError(
                f"the serial line waits for somebody else's answer, and nothing is typed there: {said!r}",
                hint="what it asks for has to be in the image, or handed to it as a credential",
            )
        reply = None
        if received != replied and _MAINTENANCE.search(tail):
            reply = _maintenance(bytes(before) + serial.partial, user, password)
        elif received != replied and not (careful and _STRANGE.search(tail)):
            reply = _reply(tail, user, password, probe)
            if careful and reply is not None and _PASSWORD.search(tail):
                if not named:
                    reply = None  # it is not our name that a password is asked for
                elif password is None:
                    serial.send(b"\n")
                    raise _has_password(user)
        if reply is None and time.monotonic() - silent_since >= patience:
            if not careful:
                reply = b"\x03\n" + probe if _LOGIN.search(tail) is None else b"\n"
            elif now in {Prompt.LOGIN, Prompt.SHELL}:
                reply = b"\n"  # a message has come behind the prompt, which comes again
            elif time.monotonic() - started > grace:
                break
            patience = next(poke)
        if reply is not None:
            serial.send(reply)
            named = reply == f"{user}\n".encode()
            replied, silent_since = received, time.monotonic()
    raise GuestError(f"no shell on the serial line in time; its last words were {serial.last!r}")


def _has_password(user: str) -> GuestError:
    return GuestError(
        f"{user} has a password on the serial line, and nobody has told it", hint=f"--login {user}:PASSWORD"
    )


def _maintenance(seen: bytes, user: str, password: str | None) -> bytes:
    """Return what sulogin is told: nothing where nobody has to say who they are; else root's own password alone."""
    asked = _ROOT_PASSWORD.findall(seen[-SEEN:])
    if not asked or asked[-1] != b"root password":
        return b"\n"
    if user != "root" or password is None:
        raise GuestError(
            "the guest asks for root's password for maintenance, and nobody has told it",
            hint="--login root:PASSWORD, or SYSTEMD_SULOGIN_FORCE=1 on the kernel's command line",
        )
    return f"{password}\n".encode()


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
