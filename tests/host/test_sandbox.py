"""What is started ends with what started it, and its errors are told."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import sandbox
from vmtests.host.sandbox import ToolError, View
from vmtests.host.tools import REQUIREMENTS, Tool, Toolbox, _ask, tools_tree


@pytest.fixture
def host() -> Toolbox:
    """A toolbox whose tools are the host's shell utilities."""
    names = ("sh", "cat", "true")
    return Toolbox({name: Tool(name=name, version="1", from_host=True, why="") for name in names}, None)


def test_run_gives_standard_output(host: Toolbox) -> None:
    """What a tool prints is returned, what it is fed is what it reads."""
    assert host.run("cat", stdin="hello") == "hello"


def test_tool_that_is_slow_to_read_is_fed_to_the_end(host: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a tool is to read reaches it, however often we look after it meanwhile."""
    monkeypatch.setattr(sandbox, "_LOOK_SECONDS", 0.001)
    text = "x" * (16 << 20)
    assert len(host.run("cat", stdin=text)) == len(text)


def test_tool_that_does_not_read_is_no_error(host: Toolbox) -> None:
    """A tool may end before it has read what it was given."""
    assert host.run("true", stdin="x" * (1 << 20)) == ""


def test_what_a_tool_says_needs_no_disk(host: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool can say that the disk is full: its words are not on one."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    with pytest.raises(ToolError, match="sh ended with 1: No space left"):
        host.run("sh", "-c", "echo No space left >&2; exit 1")


def test_failing_tool_is_named_with_its_last_words(host: Toolbox) -> None:
    """A tool that fails is an error with its status and the last line of its standard error."""
    with pytest.raises(ToolError, match="sh ended with 3: it hurts") as caught:
        host.run("sh", "-c", "echo first >&2; echo it hurts >&2; exit 3")
    assert caught.value.stderr == "first\nit hurts"


def test_full_disk_is_named_as_such() -> None:
    """A tool that ran out of space gets a hint to make some."""
    error = sandbox.tool_error("cp", 1, "cp: error writing 'x': No space left on device\n")
    assert error.hint is not None
    assert "space" in error.hint


def test_reason_that_a_tool_tells_before_its_last_words_is_told() -> None:
    """mkfs.erofs ends with words that say nothing; the line in which the disk is full is the one that helps."""
    error = sandbox.tool_error(
        "mkfs.erofs", 1, "<E> write: No space left on device\n<E> could not format: [Error 5]\n"
    )
    assert "No space left" in error.message


def test_tool_that_gives_no_reason_where_little_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mkfs.vfat says only that it could not write: what is free is looked at, and told where it is little."""
    said = "mkfs.vfat: failed whilst writing FAT\n(mkfs) failed with exit status 1.\n"
    monkeypatch.setattr(sandbox, "_LITTLE", 1)
    assert (
        "systemd-repart ended with 1: (mkfs) failed with exit status 1."
        == sandbox.tool_error("systemd-repart", 1, said).message
    )
    monkeypatch.setattr(sandbox, "_LITTLE", 1 << 60)
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path))
    error = sandbox.tool_error("systemd-repart", 1, said)
    assert error.message.endswith(f"B free in {tmp_path}")
    assert "space" in str(error.hint)


def test_processes_of_a_tool_end_with_it(host: Toolbox, tmp_path: Path) -> None:
    """What a tool leaves in the background is gone when the tool has ended: its process namespace is."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    host.run("sh", "-c", f"exec 9>'{fifo}'; sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
    os.set_blocking(reader, True)
    # End of file: nobody has the other end open any more. A survivor would make this wait for ever.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_tool_that_reads_what_others_made_has_limits(host: Toolbox) -> None:
    """It is ended when it takes too long, or writes without end; what it says when it fails is told."""
    assert host.read("sh", "-c", "echo out") == b"out\n"
    assert host.read("sh", "-c", "exit 3", well=(0, 3)) == b""
    with pytest.raises(HostError, match=r"sh did not end within 0\.2 s"):
        host.read("sh", "-c", "exec sleep 1000", seconds=0.2)
    with pytest.raises(HostError, match="sh writes more than 4096 bytes"):
        host.read("sh", "-c", "exec cat /dev/zero", limit=4096)
    with tempfile.TemporaryFile() as file, pytest.raises(HostError, match="sh writes more than 70000 bytes"):
        host.read("sh", "-c", "exec cat /dev/zero", output=file, limit=70000)
    with pytest.raises(ToolError, match="sh ended with 1: why"):
        host.read("sh", "-c", "echo why >&2; exit 1")


def test_environment_of_tools_has_no_language_and_no_nix() -> None:
    """Tools are told neither the user's language nor the user's Nix set-up."""
    environment = sandbox.tool_env()
    assert environment["LC_ALL"] == "C.UTF-8"
    assert not [key for key in environment if key.startswith(("NIX_", "LANG", "PYTHON"))]


def test_tools_take_no_orders_of_the_users_environment(
    toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody has tar, mkfs and systemd-repart do by a variable is not what we have them do."""
    orders = {
        "TAR_OPTIONS": "--none",
        "SOURCE_DATE_EPOCH": "never",
        "POSIXLY_CORRECT": "1",
        "MKE2FS_CONFIG": "/dev/null",
        "SYSTEMD_REPART_OVERRIDE_FSTYPE": "none",
        "COLUMNS": "1",
    }
    for name, value in orders.items():
        monkeypatch.setenv(name, value)
    assert "tar" in toolbox.run("tar", "--version")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/part.conf").write_text("[Partition]\nType=root\nFormat=ext4\nSizeMinBytes=64M\n")
    order = ("--empty=create", "--size=auto", "--offline=yes", "--dry-run=no")
    toolbox.run("systemd-repart", *order, f"--definitions={tmp_path}/root", tmp_path / "disk.raw")
    toolbox.run("mkfs.vfat", "-C", tmp_path / "esp", "65536")


def test_sandbox_dies_with_its_parent(tmp_path: Path) -> None:
    """A tool whose parent is killed with SIGKILL is gone with it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [*sandbox.sandbox(Path("/")), "sh", "-c", f"exec 9>'{fifo}'; echo up; sleep 1000"]
    script = f"import subprocess; subprocess.run({command!r})"
    parent = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_tool_that_hangs_on_a_full_disk_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that says that the disk is full and stays is ended, and the error says so."""
    monkeypatch.setattr(sandbox, "_LOOK_SECONDS", 0.05)
    with pytest.raises(ToolError, match="No space left on device") as caught:
        sandbox.run_in(Path("/"), ["sh", "-c", "echo 'write: No space left on device' >&2; exec sleep 1000"])
    assert "free some space" in (caught.value.hint or "")


def test_tool_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nix does not start without a home directory, which a service need not have."""
    monkeypatch.setenv("HOME", "/home/me")
    assert sandbox.tool_env()["HOME"] == "/home/me"
    monkeypatch.setenv("HOME", "")
    assert sandbox.tool_env()["HOME"]
    monkeypatch.delenv("HOME")
    assert sandbox.tool_env()["HOME"]


@pytest.fixture
def tree(hiding: None) -> Path:
    """The tools tree, which hides what is not in it."""
    return tools_tree()


def _behind(tree: Path) -> Path:
    """Return a directory of the host's /etc that the tree has not, and everybody may enter."""
    return next(
        path
        for path in sorted(Path("/etc").iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and path.stat().st_mode & 0o5
        and not (tree / "etc" / path.name).exists()
    )


def test_who_works_in_the_systems_directories_is_there_in_a_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have /usr/src/app, NixOS has /etc/nixos: what only the host has in /usr, and where we are in /etc,
    is as outside; the programs are the tree's.
    """
    monkeypatch.chdir(here := _behind(tree))
    script = "pwd; command -v qemu-img; ls -d /usr/local; ls /usr/share/OVMF >/dev/null && echo firmware"
    result = subprocess.run(
        [*sandbox.sandbox(tree), "sh", "-c", script], stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    assert result.stdout.splitlines() == [str(here), "/usr/bin/qemu-img", "/usr/local", "firmware"]


def test_file_in_the_systems_directories_is_shown(tree: Path) -> None:
    """A view may be of what is below /etc or /usr, beside the tree's own; nothing else of the host's is there."""
    view = View(readable=(Path("/etc/passwd"), Path("/usr/local")))
    script = "wc -l </etc/passwd; ls /usr; ls /etc/shadow"
    result = subprocess.run(
        [*sandbox.sandbox(tree, view), "sh", "-c", script], capture_output=True, encoding="utf-8", check=False
    )
    lines, *names = result.stdout.splitlines()
    assert int(lines) == len(Path("/etc/passwd").read_text(encoding="utf-8").splitlines())
    assert {"bin", "lib", "local", "share"} <= set(names)
    assert "No such file" in result.stderr


def test_what_a_tree_hides_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind the tree's own directories cannot be seen by its programs, which is said before one fails."""
    with pytest.raises(HostError, match=r"cannot see /usr/share/disks/x\.raw"):
        sandbox.sandbox(tree, View(readable=(Path("/usr/share/disks/x.raw"),)))
    monkeypatch.chdir("/usr/share/doc")
    with pytest.raises(HostError, match="cannot see /usr/share/doc"):
        sandbox.sandbox(tree)


@pytest.mark.parametrize("home", ["/", "/nonexistent", ""])
def test_nix_of_a_tree_asks_nothing_of_the_host(
    tree: Path, tmp_path: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nix starts beside a store of the host's that is somebody else's, and in a home directory that is."""
    monkeypatch.setenv("HOME", home)
    (requirement,) = (each for each in REQUIREMENTS if each.name == "nix-store")
    *enter, end = sandbox.sandbox(tree)
    answer = _ask.__wrapped__(requirement, (*enter, "--ro-bind", str(tmp_path), "/nix", end))
    assert answer.trouble is None
    assert answer.numbers >= requirement.minimum
