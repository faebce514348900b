"""Nothing is typed at a prompt that is neither a shell's nor a login's."""

import pytest

from vmtests.errors import GuestError
from vmtests.guest.login import Login
from vmtests.guest.serial import SerialShell

from .conftest import Connect, Guest, MakeGuest
from .test_serial import GETTY


def _says_hello(shell: SerialShell) -> bool:
    return shell.run("echo hello").stdout == "hello\n"


def _careful(guest: Guest, *, login: Login | None = None, seen: bytes = b"", grace: float = 0.3) -> SerialShell:
    shell = SerialShell(guest.connection, directories=("/run",), quiet_kernel=False, answer_timeout=10.0)
    shell.login(login, seen=seen, grace=grace, timeout=20.0)
    return shell


STRANGE = [
    b"Please enter passphrase for disk luks (cryptroot): (press TAB for no echo) ",
    b"Please enter passphrase for disk luks (cryptroot): [   12.000000] random: crng init done\r\n",
    b"Enter passphrase for /dev/sda2: ",
    b"-- Press any key to proceed --\r\n",
    b"Please enter the new root password (empty to skip): ",
    b"debian login: root\r\nbooting again\r\nPlease enter LUKS2 token PIN: ",
    b"/dev/sda1: recovering journal. Fix<y>? ",
    b"Continue? [y/N] ",
]


@pytest.mark.parametrize("asked", STRANGE)
def test_nothing_is_typed_at_somebody_elses_prompt(make_guest: MakeGuest, asked: bytes) -> None:
    """A passphrase, a wizard's key or an answer of fsck is never given by an examination."""
    guest = make_guest("cat")
    with pytest.raises(GuestError, match="nothing is typed there"):
        _careful(guest, seen=asked)
    assert b"" == bytes(guest.sent)


@pytest.mark.parametrize("asked", STRANGE)
def test_nothing_is_typed_at_a_prompt_that_comes_later(make_guest: MakeGuest, asked: bytes) -> None:
    """The same, where the prompt comes while somebody looks for a shell."""
    guest = make_guest("printf", "%b; ", asked.decode().replace("\r", "\\r").replace("\n", "\\n"))
    with pytest.raises(GuestError, match=r"nothing is typed there|the serial line closed"):
        _careful(guest)
    assert b"" == bytes(guest.sent)


def test_nothing_is_typed_at_a_line_that_says_nothing(make_guest: MakeGuest) -> None:
    """Where there is neither a shell's prompt nor a login's, the line is left alone, and given up early."""
    guest = make_guest("cat")
    with pytest.raises(GuestError, match="no shell on the serial line"):
        _careful(guest, seen=b"[    1.0] Linux version 6.12\r\nStarted a service\r\n")
    assert b"" == bytes(guest.sent)


def test_prompt_that_was_there_before_is_answered(make_guest: MakeGuest) -> None:
    """A shell that is logged in has written its prompt long before somebody looks for it."""
    guest = make_guest("sh", "-c", "exec bash --norc --noprofile -i 2>/dev/null")
    assert _says_hello(_careful(guest, seen=b"bash-5.2# "))


def test_message_behind_a_prompt_does_not_hide_it(make_guest: MakeGuest) -> None:
    """A line end brings a login's prompt again that a message of the kernel has come behind."""
    getty = r"read -r x; " + GETTY
    guest = make_guest("sh", "-c", getty, "getty", "")
    assert _says_hello(_careful(guest, seen=b"debian login: [   12.0] random: crng init done\r\n", grace=5))


def test_password_that_nobody_has_told_is_asked_for_in_one_sentence(make_guest: MakeGuest) -> None:
    """Without a password nothing is guessed, and the hint says how it is told."""
    guest = make_guest("sh", "-c", GETTY, "getty", "secret")
    with pytest.raises(GuestError, match="--login root:PASSWORD"):
        _careful(guest, grace=5)


def test_password_is_typed_behind_our_own_name_only(make_guest: MakeGuest) -> None:
    """A password is no answer to a question that somebody else has asked."""
    guest = make_guest("sh", "-c", "printf 'Password: '; exec cat")
    with pytest.raises(GuestError, match="no shell on the serial line"):
        _careful(guest, login=Login(password="secret"))
    assert b"secret" not in bytes(guest.sent)
    guest = make_guest("sh", "-c", GETTY, "getty", "secret")
    assert _says_hello(_careful(guest, login=Login(password="secret"), grace=5))


RESPAWNED = """
while :; do
    printf '\n(none) login: '; read -r name || exit
    [ "$name" = root ] || continue
    times=$((times + 1))
    if [ "$times" -gt "$1" ]; then exec bash --norc --noprofile -i; fi
    printf '\n# '
    for line in 1 2 3 4; do read -r typed; eval "$typed"; printf '# '; done
done
"""


def test_shell_that_ends_while_it_is_made_ready_is_entered_again(make_guest: MakeGuest, connect: Connect) -> None:
    """busybox's shell can end with an interrupt: nothing is typed as a name again and again, root logs in anew."""
    guest = make_guest("bash", "-c", RESPAWNED, "getty", "1")
    assert _says_hello(connect(guest))
    names = [line for line in bytes(guest.sent).splitlines() if line == b"root"]
    assert len(names) == 2


def test_shell_that_ends_each_time_is_one_sentence(make_guest: MakeGuest, connect: Connect) -> None:
    """A line whose shell never stays is told after three logins, by what it asks for."""
    with pytest.raises(GuestError, match=r"shell ended, and its serial line asks for a login: '\(none\) login:'"):
        connect(make_guest("bash", "-c", RESPAWNED, "getty", "9"))


def test_shell_that_is_gone_between_two_commands_is_told_at_once(make_guest: MakeGuest, connect: Connect) -> None:
    """A shell that somebody ended is told when it is first missed, and can be logged in to again."""
    guest = make_guest("bash", "-c", "while :; do printf 'login: '; read -r name; bash --norc --noprofile -i; done")
    shell = connect(guest)
    guest.connection.sendall(b"exit\n")
    with pytest.raises(GuestError, match="shell ended, and its serial line asks for a login"):
        shell.run("echo hello")
    shell.login()
    assert _says_hello(shell)


SULOGIN = r"""
printf 'Give root password for maintenance\n(or %s): ' "$1"
stty -echo; read -r word; stty echo
[ "$word" = secret ] || { printf '\nLogin incorrect\n\n'; sleep 60; }
exec bash --norc --noprofile -i
"""


@pytest.mark.parametrize("other", ["press Control-D to continue", "type Control-D for normal startup"])
def test_maintenance_asks_for_roots_own_password(make_guest: MakeGuest, other: str) -> None:
    """sulogin gets root's password where it was told, and nothing at all where it was not or is somebody else's."""
    for login in (None, Login(user="debian", password="secret")):
        guest = make_guest("bash", "-c", SULOGIN, "sulogin", other)
        with pytest.raises(GuestError, match="asks for root's password for maintenance"):
            _careful(guest, login=login, grace=5.0)
        assert bytes(guest.sent) == b""
    guest = make_guest("bash", "-c", SULOGIN, "sulogin", other)
    assert _says_hello(_careful(guest, login=Login(password="secret"), grace=5.0))


@pytest.mark.parametrize("other", ["press Control-D to continue", "type Control-D to continue"])
def test_maintenance_without_a_password_wants_a_key(make_guest: MakeGuest, other: str) -> None:
    """sulogin of a root account that has no password, or need not tell it, gets Enter."""
    script = f"printf 'Press Enter for maintenance\n(or {other}): '; read -r x; exec bash --norc -i"
    assert _says_hello(_careful(make_guest("bash", "-c", script), grace=5.0))
