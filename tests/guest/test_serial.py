"""The serial shell, against real shells on a pseudo terminal."""

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from vmtests.errors import GuestError, InputError
from vmtests.guest.line import SerialLine
from vmtests.guest.result import GuestTimeout
from vmtests.guest.serial import SerialShell

from .conftest import BASH, Chaos, Connect, Guest, Lossy, MakeGuest


def test_streams_are_separate(shell: SerialShell) -> None:
    """Standard output, standard error and the exit code come apart."""
    result = shell.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)


def test_short_command_takes_one_question(make_guest: MakeGuest, connect: Connect) -> None:
    """A command that writes little is run, and its outputs fetched, by a single call into the guest."""
    guest = make_guest()
    shell = connect(guest)
    shell.run("true")
    guest.sent.clear()
    result = shell.run("echo 'a: b\\c'; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("a: b\\c\n", "err\n", 3)
    shell.run("true")
    assert ["_vm_go", "_vm_go"] == guest.calls[guest.calls.index("_vm_go") :][:2]


def test_output_is_byte_exact(shell: SerialShell) -> None:
    """Every byte value comes back as it was written, although the line is a text channel."""
    result = shell.run('for i in $(seq 0 255); do printf "\\\\$(printf %03o $i)"; done')
    assert result.stdout_bytes == bytes(range(256))


def test_output_without_a_newline_stays_so(shell: SerialShell) -> None:
    """No line end is added to an output that has none."""
    assert shell.run("printf x").stdout == "x"


def test_no_output(shell: SerialShell) -> None:
    """A command that writes nothing gives two empty outputs and its exit code."""
    result = shell.run("false")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 1)


@pytest.mark.parametrize(
    "text",
    ["'", '"', "\\", "!!", "$HOME `id`", "a\nb", "\t|", "äöü €", "%s%%", "\\0101", "~ * ?", "vm" * 500],
)
def test_commands_arrive_as_they_are(shell: SerialShell, text: str) -> None:
    """Quotes, newlines, history characters and non-ASCII text in a command reach the shell unchanged."""
    assert shell.run(f"cat <<'END'\n{text}\nEND\n").stdout == f"{text}\n"


def test_a_command_of_64_kib(shell: SerialShell) -> None:
    """A command may be longer than a terminal's line."""
    assert len(shell.run(f"echo {'x' * 65536}").stdout) == 65537


def test_a_megabyte_comes_back(shell: SerialShell) -> None:
    """A large output comes back whole."""
    assert shell.run("seq 150000").lines == [str(number) for number in range(1, 150001)]


def test_standard_input(shell: SerialShell) -> None:
    """Standard input carries any bytes and then ends."""
    data = bytes(range(256)) * 8
    assert shell.run("cat", stdin=data).stdout_bytes == data


def test_standard_input_is_empty_by_default(shell: SerialShell) -> None:
    """A command that reads gets the end of file, not what is typed on the line."""
    assert shell.run("cat; echo done").stdout == "done\n"


def test_commands_do_not_touch_the_shell(shell: SerialShell) -> None:
    """What a command does to its shell is gone with it."""
    shell.run("cd /; set -e; exec 1>&2; PS1='$ '; exit 7")
    assert shell.run("echo still here").stdout == "still here\n"


def test_a_killed_command(shell: SerialShell) -> None:
    """A command whose shell is killed by signal n ends with 128 + n."""
    assert shell.run("kill -9 $$").exit_code == 137


def test_a_syntax_error(shell: SerialShell) -> None:
    """A command that is no shell language ends with 2, and the shell says why."""
    result = shell.run("if (")
    assert result.exit_code == 2
    assert "syntax error" in result.stderr


def test_what_stays_behind_does_not_hold_the_command(shell: SerialShell) -> None:
    """A background process that keeps the outputs open does not keep the command from ending."""
    assert shell.run("sleep 30 & echo $!", timeout=10).check().duration < 10


def _runs(process: Path) -> bool:
    try:
        return " Z " not in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_timeout(shell: SerialShell, home: Path) -> None:
    """A command that takes too long is ended, what it wrote is told, and the shell is usable at once."""
    with pytest.raises(GuestTimeout, match="its last line was 'started'") as caught:
        shell.run("echo started; echo $$ >pid; sleep 60 | sleep 60", timeout=0.2)
    assert (caught.value.stdout, caught.value.seconds) == ("started\n", 0.2)
    process = Path("/proc") / (home / "pid").read_text().strip()
    deadline = time.monotonic() + 5
    while _runs(process) and time.monotonic() < deadline:
        shell.run("true")
    assert not _runs(process)


def test_timeout_of_a_stubborn_command(shell: SerialShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ignores SIGTERM is killed."""
    monkeypatch.setattr("vmtests.guest.serial._TERM_SECONDS", 0.1)
    with pytest.raises(GuestTimeout):
        shell.run("trap '' TERM INT HUP; while :; do sleep 60; done", timeout=0.1)
    assert shell.run("echo alive").stdout == "alive\n"


def test_output_limit(shell: SerialShell) -> None:
    """More output than the limit is an error, not a transfer."""
    with pytest.raises(GuestError, match="wrote 5000 bytes to standard error"):
        shell.run("head -c 5000 /dev/zero >&2", limit=4999)
    assert shell.run("head -c 4999 /dev/zero", limit=4999).stdout_bytes == bytes(4999)


def test_files_are_removed(shell: SerialShell, home: Path) -> None:
    """Nothing of a command that was given, or wrote, much stays in the guest, and little of few others."""
    listing = f"ls {home}/vmtests-*"
    shell.run("echo one", stdin=b"two")
    assert {".c", ".o", ".e", ".r"} == {Path(name).suffix for name in shell.run(listing).lines}
    for _ in range(40):
        shell.run("echo little")
    assert len({Path(name).stem for name in shell.run(listing).lines}) <= 16
    shell.run("head -c 5000 /dev/zero")
    assert {".c", ".o", ".e", ".r"} == {Path(name).suffix for name in shell.run(listing).lines}


def test_a_forged_answer(shell: SerialShell) -> None:
    """What a command writes to the terminal by itself is never taken for an answer."""
    forged = "vm0123456789abcdef01234567:end 0 base64 0 4294967295 0 base64 0 4294967295 0:55."
    result = shell.run(f"for i in 1 2 3; do printf '\\n%s\\n' '{forged}' >/proc/$PPID/fd/1; done; echo true; exit 5")
    assert (result.stdout, result.exit_code) == ("true\n", 5)


@pytest.mark.parametrize("seed", range(2))
def test_kernel_messages_between_the_bytes(make_guest: MakeGuest, connect: Connect, seed: int) -> None:
    """Kernel messages in the middle of lines damage neither answers nor outputs."""
    chaos = Chaos(every=300, seed=seed)
    shell = connect(make_guest(to_host=chaos))
    before = chaos.injected
    data = bytes(range(256)) * 32
    result = shell.run("cat; echo err >&2; exit 4", stdin=data)
    assert (result.stdout_bytes, result.stderr, result.exit_code) == (data, "err\n", 4)
    assert chaos.injected > before


@pytest.mark.parametrize("at", [3, 611, 1024, 4000])
def test_a_lost_byte_of_input(make_guest: MakeGuest, connect: Connect, at: int) -> None:
    """A byte that the UART lost is noticed, and what it was part of is sent again."""
    lossy = Lossy(at)
    shell = connect(make_guest(to_guest=lossy))
    assert shell.run("cat", stdin=b"0123456789" * 300).stdout == "0123456789" * 300
    assert lossy.lost


def test_markers_are_never_sent_whole(make_guest: MakeGuest, connect: Connect) -> None:
    """No line that the host types holds the tag that its answer is known by."""
    heard = bytearray()

    def listen(data: bytes) -> bytes:
        heard.extend(data)
        return data

    guest = make_guest(to_host=listen)
    connect(guest).run("echo hello")
    tags = {line.split(b":")[0].split(b"@")[0] for line in bytes(heard).split(b"\n") if line.endswith(b".\r")}
    assert len(tags) >= 5
    assert not [tag for tag in tags if tag in guest.sent]


def test_the_line_closes_while_waiting(make_guest: MakeGuest, connect: Connect) -> None:
    """A wait ends at once when the other side of the line is gone."""
    guest = make_guest()
    shell = connect(guest)
    started = time.monotonic()
    timer = threading.Timer(0.1, guest.unplug)
    timer.start()
    with pytest.raises(GuestError, match="the serial line closed"):
        shell.run("sleep 60")
    timer.join()
    assert time.monotonic() - started < 5


def test_the_line_closes_at_login(make_guest: MakeGuest, connect: Connect) -> None:
    """A guest that is gone before there is a shell ends the login at once."""
    with pytest.raises(GuestError, match="the serial line closed"):
        connect(make_guest("true"))


def test_run_before_login(make_guest: MakeGuest) -> None:
    """A command before the login is refused with a hint."""
    with pytest.raises(GuestError, match=r"call login\(\) first"):
        SerialShell(make_guest().connection).run("true")


def test_a_nul_in_a_command(shell: SerialShell) -> None:
    """A command with a NUL character is refused, since no shell can hold one."""
    with pytest.raises(InputError, match="NUL"):
        shell.run("echo \0")


def test_the_command_s_shell_is_killed(make_guest: MakeGuest, connect: Connect) -> None:
    """A shell that is killed under a command gives an error that says so."""
    shell = connect(make_guest())
    with pytest.raises(GuestError, match="was killed in the guest"):
        shell.run("kill -9 $PPID")


GETTY = r"""
printf '\nDebian GNU/Linux 13 nixos ttyS0\n\nnixos login: '
while read -r name && [ "$name" != root ]; do printf 'nixos login: '; done
[ -z "$1" ] || while printf 'Password: ' && read -r word && [ "$word" != "$1" ]; do
    printf '\nLogin incorrect\nnixos login: '; read -r name
done
printf 'Last login: Sat Nov 22 10:00:00 UTC 2025 on ttyS0\n'
exec bash --norc --noprofile -i
"""


def _says_hello(shell: SerialShell) -> bool:
    return shell.run("echo hello").stdout == "hello\n"


def test_login_prompt(make_guest: MakeGuest, connect: Connect) -> None:
    """At a login prompt root logs in."""
    assert _says_hello(connect(make_guest("sh", "-c", GETTY, "getty", "")))


def test_password_prompt(make_guest: MakeGuest, connect: Connect) -> None:
    """At a password prompt the password is given."""
    assert _says_hello(connect(make_guest("sh", "-c", GETTY, "getty", "secret"), password="secret"))


def test_refused_login(make_guest: MakeGuest, connect: Connect) -> None:
    """A guest that refuses the password three times is not asked again."""
    with pytest.raises(GuestError, match="refused the login of 'root' 3 times"):
        connect(make_guest("sh", "-c", GETTY, "getty", "secret"), password="wrong")


def test_locked_emergency_mode(make_guest: MakeGuest, connect: Connect) -> None:
    """An emergency shell behind a locked root account is an error with a way out."""
    said = "Cannot open access to console, the root account is locked.\n\nPress Enter to continue.\n"
    with pytest.raises(GuestError, match="SYSTEMD_SULOGIN_FORCE=1"):
        connect(make_guest("sh", "-c", f"printf '{said}'; cat"))


def test_press_enter(make_guest: MakeGuest, connect: Connect) -> None:
    """An emergency shell that wants a key press first gets it."""
    said = "Press Enter for system maintenance\\n(or press Control-D to continue): "
    script = f"printf '{said}'; read -r x; exec bash -i"
    assert _says_hello(connect(make_guest("sh", "-c", script)))


@pytest.mark.parametrize(
    "prompt",
    [
        r"bash-5.2# ",
        r"~ # ",
        r"\n\[\033[1;31m\][\[\e]0;\u@\h: \w\a\]\u@\h:\w]\$\[\033[0m\] ",
        "",
    ],
)
def test_prompts(make_guest: MakeGuest, connect: Connect, tmp_path: Path, prompt: str) -> None:
    """A shell is found behind any prompt: of stage 1, of NixOS with colours and a title, or none at all."""
    (tmp_path / "rc").write_text(f"PS1='{prompt}'; PROMPT_COMMAND='echo -n x'; alias kill=false wc=false\n")
    shell = connect(make_guest("bash", "--rcfile", str(tmp_path / "rc"), "-i"))
    assert _says_hello(shell)


def test_something_runs_on_the_line(make_guest: MakeGuest, connect: Connect) -> None:
    """A program that somebody left running is interrupted."""
    assert _says_hello(connect(make_guest("sh", "-c", "trap : INT; sleep 60; exec bash --norc -i")))


def test_second_login(make_guest: MakeGuest, connect: Connect) -> None:
    """A line that has been used can be logged in to again, and is a person's in between."""
    guest = make_guest()
    with connect(guest) as first:
        assert _says_hello(first)
    assert _says_hello(connect(guest))


def test_no_shell(make_guest: MakeGuest, connect: Connect) -> None:
    """A guest that never shows a shell gives an error with its last words, control characters escaped."""
    with pytest.raises(GuestError, match=r"last words were 'Shell> \\\\x1b"):
        connect(
            make_guest("sh", "-c", "stty -echo -isig; printf 'Shell> \\033[5m\\n'; exec sleep 60"),
            timeout=0.3,
        )


def test_no_directory(make_guest: MakeGuest) -> None:
    """A guest without a writable directory is told so."""
    shell = SerialShell(make_guest().connection, directories=("/proc", "/dev/null/none"), quiet_kernel=False)
    with pytest.raises(GuestError, match="tried /proc, /dev/null/none"):
        shell.login(timeout=10)


def test_dash(make_guest: MakeGuest, connect: Connect) -> None:
    """A POSIX shell without bash's additions will do."""
    result = connect(make_guest("sh", "-i")).run("printf 'a\\0b'; exit 9")
    assert (result.stdout_bytes, result.exit_code) == (b"a\0b", 9)


@pytest.mark.parametrize(
    "tools",
    [
        ("base64", "cksum", "wc", "gzip"),
        ("base64", "cksum", "wc"),
        ("od", "cksum", "wc"),
        ("base64",),
        ("od",),
        (),
    ],
)
def test_a_stage_1_with_few_tools(
    make_guest: MakeGuest, connect: Connect, tmp_path: Path, tools: tuple[str, ...]
) -> None:
    """Outputs come back whole with the tools that there are, and with the shell alone."""
    (tmp_path / "bin").mkdir()
    for tool in ("bash", *tools):
        place = shutil.which(tool)
        assert place is not None
        (tmp_path / "bin" / tool).symlink_to(place)
    guest = make_guest("env", f"PATH={tmp_path / 'bin'}", "bash", "--norc", "--noprofile", "-i")
    text = "for ((i = 0; i < 256; i++)); do printf -v o '\\\\%03o' $i; printf \"$o\"; done"
    times = 10 if "gzip" in tools else 1
    result = connect(guest).run(f"for ((n = 0; n < {times}; n++)); do {text}; done; echo err >&2")
    assert (result.stdout_bytes, result.stderr) == (bytes(range(256)) * times, "err\n")


def test_a_shell_without_any_tool(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """A shell that can neither encode an output nor call what can is an error that says so."""
    place = shutil.which("dash") or shutil.which("sh")
    assert place is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(place)
    shell = connect(make_guest("env", f"PATH={tmp_path / 'bin'}", "sh", "-i"))
    with pytest.raises(GuestError, match="neither base64 nor od"):
        shell.run("echo x")


def test_two_guests_do_not_share(make_guest: MakeGuest, connect: Connect) -> None:
    """Two shells at a time, in one directory, do not take each other's files."""
    first, second = connect(make_guest()), connect(make_guest(*BASH))
    assert [guest.run(f"echo {name}").stdout for guest, name in ((first, 1), (second, 2))] == ["1\n", "2\n"]


@pytest.mark.parametrize("prepared", [False, True], ids=["a shell", "what waits for it"])
def test_nothing_is_typed_after_a_command_that_ends_the_shell(
    make_guest: MakeGuest, connect: Connect, prepared: bool
) -> None:
    """A reboot is told once, and nobody asks how it went: a boot loader would take that for keys."""
    guest = make_guest()
    shell = connect(guest)
    if prepared:
        shell.prepare()
    guest.sent.clear()
    shell.leave("while kill -0 $PPID; do sleep 0.1; done")
    shell.release()
    with pytest.raises(GuestError, match=r"call login\(\) first"):
        shell.run("echo is not typed")
    line = SerialLine(guest.connection)
    line.send(b"echo o''ver\n")
    assert b"over" in iter(lambda: line.read_line(10), None)
    assert guest.calls == ["_vm_go"]


@pytest.mark.parametrize("other", ["bash --norc --noprofile -i", "dash -i"])
def test_other_shell_on_the_line_is_told_at_once(make_guest: MakeGuest, connect: Connect, other: str) -> None:
    """A shell that knows nothing of us, as after a reboot, is not asked until the patience ends."""
    guest = make_guest()
    shell = connect(guest)
    guest.connection.sendall(f"exec {other}\n".encode())
    started = time.monotonic()
    with pytest.raises(GuestError, match="is another one than was logged in to"):
        shell.run("true")
    assert time.monotonic() - started < 5
    shell.login(timeout=20)
    assert shell.run("echo back").stdout == "back\n"


def test_an_endless_line(make_guest: MakeGuest, connect: Connect) -> None:
    """A guest that writes for ever without a line end does not fill the host's memory."""
    guest: Guest = make_guest("sh", "-c", "stty -echo; tr '\\0' x </dev/zero")
    with pytest.raises(GuestError, match="without a line end"):
        connect(guest)


def test_prepared_command_is_like_any_other(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """The first command of a guest that was kept finds its shell running, and sees what any command sees."""
    files = "for file in /proc/$$/fd/*; do echo ${file##*/} $(readlink $file); done"
    probe = f"echo $LINENO $0 $# $- $(umask) $PPID; env | sort; {files}; cat; pwd >&2; (exit 4)"
    guest = make_guest()
    shell = connect(guest)
    plain = shell.run(probe, timeout=5)
    job = shell.prepare()
    assert job == shell.prepare()
    guest.sent.clear()
    first = shell.run(probe, timeout=5)
    assert ([], 4) == (guest.calls, first.exit_code)

    def alike(text: str) -> str:
        return re.sub(r"vmtests-\w+|(?<= )\d{3,}\b|\[\d+\]", "X", text)

    assert (alike(plain.stdout), plain.stderr) == (alike(first.stdout), first.stderr)
    shell.prepare()
    assert [] == list(tmp_path.glob(f"{job}.*"))


def test_shells_of_two_forks_do_not_draw_the_same(make_guest: MakeGuest, connect: Connect) -> None:
    """A shell that waited in the snapshot of several machines has a seed of its own in each."""
    shell = connect(make_guest())
    shell.prepare()
    first = shell.run("echo $RANDOM $RANDOM").stdout
    shell.prepare()
    assert first != shell.run("echo $RANDOM $RANDOM").stdout


@pytest.mark.parametrize("killed", ["c", "t"], ids=["the shell", "the program"])
def test_what_waited_and_was_killed_is_told(make_guest: MakeGuest, connect: Connect, killed: str) -> None:
    """A command that never reached a shell does not seem to have run, and the next one has a shell of its own."""
    shell = connect(make_guest())
    job = shell.prepare()
    subprocess.run(["pkill", "-KILL", "-f", rf"^(\S+ )?\S+/{job}\.{killed}$"], check=True)
    assert ("", 137) == ((lost := shell.run("echo lost")).stdout, lost.exit_code)
    assert "there\n" == shell.run("echo there").stdout


def test_what_waits_makes_way_for_a_long_command(make_guest: MakeGuest, connect: Connect) -> None:
    """A command that does not fit, or reads, gets the shell that it would get anywhere."""
    shell = connect(make_guest())
    shell.prepare()
    assert 2000 == len(shell.run(f"printf %s {'x' * 2000}").stdout)
    shell.prepare()
    assert "read\n" == shell.run("cat", stdin=b"read\n").stdout


def test_script_that_the_line_loses_is_handed_over_again(make_guest: MakeGuest, connect: Connect) -> None:
    """A byte that is lost on the way to the program costs half a second, and the script runs once."""
    lossy: list[Lossy] = []
    guest = make_guest(to_guest=lambda data: lossy[0](data) if lossy else data)
    shell = connect(guest)
    shell.prepare()
    lossy.append(Lossy(at=60))
    assert "1\n" == shell.run("echo x >>once; wc -l <once").stdout
    assert lossy[0].lost
