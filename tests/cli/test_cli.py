"""The command line: one sentence, a hint and the right exit status for every bad input; nothing left behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.signals import heed
from vmtests import cli
from vmtests.cli import command, diff, doctor
from vmtests.errors import HostError


def _fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status = cli.main(argv)
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("vmtests: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    return lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["inspect", "boot"])
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("none.raw", "does not exist"),
        ("/dev/null", "is a character device"),
        ("empty.raw", "is empty"),
        ("directory", "is a directory"),
        ("noise.raw", "is not a disk"),
    ],
)
def test_what_is_no_image_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, name: str, part: str
) -> None:
    """What is no disk image exits with 2, a sentence and a hint, and leaves no directory of results."""
    (here / "empty.raw").touch()
    (here / "directory").mkdir()
    (here / "noise.raw").write_bytes(bytes(range(256)) * 4096)
    assert part in _fails(capsys, command, name)
    assert sorted(path.name for path in here.iterdir()) == ["directory", "empty.raw", "noise.raw"]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("build", "--module", "foo"), "unknown module 'foo'"),
        (("build", "--module", "bloat:0"), "'0' is not a size"),
        (("build", "--out", "none/disk.raw"), "cannot be written: there is no directory"),
        (("build", "--archive", "."), "cannot be written: it is a directory"),
        (("build", "--spec", "image.json"), "--spec needs --out"),
        (("build", "--spec", "image.json", "--out", "x"), "image.json cannot be read"),
        (("build", "--spec", "image.json", "--out", "x", "--module", "debug"), "exclude each other"),
        (("boot", "reference", "--memory", "much"), "'much' is not a size"),
        (("boot", "reference", "--memory", "9" * 5000), "is not a size"),
        (("boot", "reference", "--memory", "1M"), "cannot boot"),
        (("boot", "reference", "--cpus", "0"), "cannot boot"),
        (("boot", "reference", "--cpus", "1000000"), "1000000 CPUs cannot boot"),
        (("boot", "reference", "--ssh", "--plain"), "--ssh needs a terminal"),
        (("boot", "reference", "--record", "--rewind", "initrd"), "--record is of a whole boot"),
        (("attach",), "attaching needs a terminal"),
        (("boot", "reference", "--disk", "none.raw"), "none.raw is not there"),
        (("boot", "reference", "--disk", "0G"), "'0G' is not a size"),
        (("boot", "reference", "--disk", "9" * 5000), "is not a size"),
        (("diff", "a.raw", "b.raw", "--boot", "9" * 12), "N from 1 to 1000"),
        (("torture", "reference", "--moments", "9" * 12), "-j and --moments are numbers from 1 on"),
        (("report", "n" * 300), "File name too long"),
        (("explain", "n" * 300), "File name too long"),
        (("bisect", "--list", "n" * 300), "File name too long"),
        (("boot", "reference", "--cdrom", "none.iso"), "none.iso is not there"),
        (("boot", "reference", "--kernel", "none"), "none is not there"),
        (("boot", "reference", "--append", "quiet"), "without a kernel"),
        (("boot", "reference", "--firmware", "bios", "--secure-boot"), "no secure boot"),
        (("boot", "noise.raw", "--module", "bloat"), "bloat is built into the reference image"),
    ],
)
def test_bad_arguments_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], part: str
) -> None:
    """A bad argument exits with 2, a sentence and a hint, before anything is made."""
    assert part in _fails(capsys, *argv)
    assert list(here.iterdir()) == []


def test_cache_that_cannot_be_written_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be made is named with a way out."""
    (here / "file").touch()
    monkeypatch.setenv("VMTESTS_CACHE", str(here / "file/cache"))
    assert "the cache" in _fails(capsys, "build")


def test_error_without_a_hint_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error without a hint is one line."""

    def broken(_arguments: object) -> int:
        raise HostError("it broke")

    monkeypatch.setattr(doctor, "run", broken)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "vmtests: it broke\n"


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file name with an escape sequence is not printed as one."""
    assert "\x1b" not in _fails(capsys, "inspect", "x\x1b[31m")


@pytest.mark.parametrize("name", ["new\nline", "x\x1b[31m", "\udcff"])
def test_an_error_is_one_line_in_json_too(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Whatever a name has, a program that prints the sentence prints one line."""
    (here / name).touch()
    assert cli.main(["inspect", "--json", name]) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["error"].isprintable()
    assert err.startswith(f"vmtests: {told['error']}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_command_says_so_and_exits_with_2(here: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a command with one line, a hint and status 2, without a traceback."""
    os.mkfifo(here / "spec.json")
    command = [sys.executable, "-m", "vmtests.cli", "build", "--spec", "spec.json", "--out", "x"]
    # Opening the other end waits until the command reads it: then it is in the middle of its work.
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process,
        (here / "spec.json").open("w"),
    ):
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read() == (
            "vmtests: interrupted\nhint: what was finished is kept: the same command goes on from there\n"
        )
    assert process.returncode == 2


@pytest.mark.parametrize(
    "module", ["argparse", "vmtests.cli.streams", "vmtests.cli.command", "msgspec", "vmtests.cli.common"]
)
def test_ctrl_c_while_python_imports_shows_no_traceback(here: Path, module: str) -> None:
    """Whichever module was imported last: it dies of the signal, as any program, or says that it was interrupted."""
    os.mkfifo(here / "log")  # nobody writes it, so that it does not end by itself
    program = "import sys; from vmtests.cli import main; sys.exit(main())"
    told = [sys.executable, "-X", "importtime", "-c", program, "explain", "log"]
    with subprocess.Popen(told, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        assert process.stderr is not None
        assert any(line.rpartition("|")[2].strip() == module for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode in {-signal.SIGINT, 2}
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("LookupError('never')", "a bug of vmtests, or this host, ended it; that says nothing of the image\n"),
        ("MemoryError()", "this host has no memory left\n"),
        ("ImportError('failed to map segment')", "this host gives no more: failed to map segment\n"),
    ],
)
def test_bug_is_not_the_images_fault(error: str, told: str) -> None:
    """What nobody foresaw ends with 2, wherever it happens: Python's own status is 1, as for a bad image."""
    script = (
        "import sys; from vmtests.cli import command, main\n"
        f"def fail(*_): raise {error}\n"
        "command._begin = fail; sys.exit(main())"
    )
    ended = subprocess.run([sys.executable, "-c", script, "doctor"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"vmtests: {told}" in ended.stderr


def test_emulator_serves_until_it_is_ended(here: Path) -> None:
    """The emulator prints its address, serves, and ends at SIGTERM; then nothing of it is left."""
    command = [sys.executable, "-m", "vmtests.cli", "emulator", "--no-boot"]
    environment = {**os.environ, "VMTESTS_CACHE": str(here)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        (token,) = (here / "emulator").glob("*/token-*")
        headers = {"Authorization": f"Bearer {token.read_text()}"}
        asked = urllib.request.Request(f"{address}/compute/v1/projects/p/zones/us-east1-b", headers=headers)
        with urllib.request.urlopen(asked) as answer:
            assert "us-east1-b" == json.load(answer)["name"]
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "vmtests:" not in process.stderr.read()
    assert process.returncode == 0
    assert [] == list((here / "emulator").iterdir())


def test_doctor_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor --json` prints one JSON object; on a host that can boot it exits with 0."""
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True


def test_help_imports_nothing_heavy() -> None:
    """`vmtests --help` names every command, and imports none of them."""
    code = (
        "import contextlib, sys; from vmtests import cli; from vmtests.cli import command\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "print(*sorted(m for m in sys.modules if m.partition('.')[0] in {'rich', 'paramiko', 'google', 'elftools'}"
        " or m.removeprefix('vmtests.cli.') in command.COMMANDS))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == ""
    assert set(command.COMMANDS) <= {line.split()[0] for line in told.splitlines() if line.startswith("    ")}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_is_a_file(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Each command that the help names has a help of its own."""
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert f"usage: vmtests {name}" in capsys.readouterr().out


def test_closed_streams_are_no_files(here: Path) -> None:
    """Whoever starts us with closed standard streams gets the exit status, and no file of ours is taken for one."""
    script = f"exec {sys.executable} -m vmtests.cli inspect none.raw <&- >&-"
    closed = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert (closed.returncode, closed.stderr.splitlines()[0]) == (2, "vmtests: none.raw does not exist")
    assert subprocess.run(["sh", "-c", f"{script} 2>&-"], check=False).returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_name_that_cannot_be_shown_is_escaped(here: Path, encoding: str) -> None:
    """A name is no text for certain, nor can a terminal show all letters: what it cannot is escaped."""
    shown = subprocess.run(
        [sys.executable, "-m", "vmtests.cli", "inspect", b"\xff\xe2\x82\xac.raw"],
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "1"},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert shown.returncode == 2
    assert "does not exist" in shown.stderr.decode(encoding)
    assert b"Traceback" not in shown.stderr


def test_who_ignores_the_end_of_children_is_put_right(here: Path) -> None:
    """A starter that ignores SIGCHLD leaves that to us, with which bubblewrap would wait for ever."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert cli.main(["inspect", "none.raw"]) == 2
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_full_disk_is_not_taken_for_standard_output(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file of ours finds no room, nothing is said of standard output, which has."""

    def full(_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor, "run", full)
    assert "this host gives no more: No space left" in _fails(capsys, "doctor")


def test_results_that_cannot_be_made_are_refused_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A place for results that can never be is told before an image is looked at, or built."""
    (here / "file").touch()
    assert "no directory for results" in _fails(capsys, "boot", "none.raw", "--results", "file/x")


def test_host_without_devices_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without /dev gets its sentence before anything else is done."""
    monkeypatch.setattr(os, "devnull", "/dev/none")
    assert "this host has no /dev/none" in _fails(capsys, "doctor")


def test_signal_that_comes_when_all_is_said_changes_nothing(tmp_path: Path) -> None:
    """Who presses Ctrl-C twice gets the exit status of the first, and no traceback of Python's own end."""
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    program = f"{late}; from vmtests import cli; raise SystemExit(cli.main())"
    command = [sys.executable, "-c", program, "inspect", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=heed)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_diff_says_what_it_has_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Two images of which the same could not be read may differ in it."""
    diff._show([], None, ["root: the files of btrfs are not read"])
    told = capsys.readouterr().out.splitlines()
    assert told == ["nothing differs in what was read; left out:", "  root: the files of btrfs are not read"]
