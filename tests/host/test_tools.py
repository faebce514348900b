"""Tools are taken from the host when they are new enough, and a tree that exists is whole."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.host.sandbox import ToolError
from vmtests.host.tools import Tool, Toolbox


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def host() -> Toolbox:
    """A toolbox whose tools are the host's shell utilities."""
    names = ("sh", "cat", "true")
    return Toolbox({name: Tool(name=name, version="1", from_host=True, why="") for name in names}, None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds)", "10.0.13"),
        ("systemd 257 (257.13-1~deb13u1)", "257.13"),
        ("mkfs.erofs (erofs-utils) 1.8.6", "1.8.6"),
        ("*** Zstandard CLI (64-bit) v1.5.7, by Yann Collet ***", "1.5.7"),
        ("systemd 252", "252"),
    ],
)
def test_version_is_found_in_what_tools_print(text: str, version: str) -> None:
    """The version is the first dotted number, or the first number that stands alone."""
    found = tools._parse_version(text)
    assert found is not None
    assert found[0] == version


def test_version_of_nonsense_is_unknown() -> None:
    """A program that prints no number has no version."""
    assert tools._parse_version("usage: whatever") is None


def test_run_gives_standard_output(host: Toolbox) -> None:
    """What a tool prints is returned, what it is fed is what it reads."""
    assert host.run("cat", stdin="hello") == "hello"


def test_failing_tool_is_named_with_its_last_words(host: Toolbox) -> None:
    """A tool that fails is an error with its status and the last line of its standard error."""
    with pytest.raises(ToolError, match="sh ended with 3: it hurts") as caught:
        host.run("sh", "-c", "echo first >&2; echo it hurts >&2; exit 3")
    assert caught.value.stderr == "first\nit hurts"


def test_full_disk_is_named_as_such() -> None:
    """A tool that ran out of space gets a hint to make some."""
    error = tools.tool_error("cp", 1, "cp: error writing 'x': No space left on device\n")
    assert error.hint is not None
    assert "space" in error.hint


def test_tool_sees_further_mounts(host: Toolbox, tmp_path: Path) -> None:
    """Mounts are handed over by file, so that there can be thousands of them."""
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("found")
    mounts = ["--ro-bind", str(tmp_path / "here"), str(tmp_path / "there")] * 500
    assert host.run("cat", tmp_path / "there/file", mounts=mounts) == "found"


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


def test_environment_of_tools_has_no_language_and_no_nix() -> None:
    """Tools are told neither the user's language nor the user's Nix set-up."""
    environment = tools.tool_env()
    assert environment["LC_ALL"] == "C.UTF-8"
    assert not [key for key in environment if key.startswith(("NIX_", "LANG", "PYTHON"))]


def _unpack(calls: list[Path], *, fail: bool = False) -> object:
    def unpack(target: Path, packages: Sequence[str], title: str) -> None:
        calls.append(target)
        target.mkdir(parents=True, exist_ok=True)
        (target / "begun").touch()
        if fail:
            raise HostError("the network went away")

    return unpack


def test_tree_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is whole is used again."""
    calls: list[Path] = []
    monkeypatch.setattr(tools, "unpack_debian", _unpack(calls))
    first = tools.make_tree(["a", "b"], name="tools", title="tree")
    assert first == tools.make_tree(["b", "a"], name="tools", title="tree")
    assert len(calls) == 1


def test_half_made_tree_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose making was interrupted is not taken for whole."""
    calls: list[Path] = []
    monkeypatch.setattr(tools, "unpack_debian", _unpack(calls, fail=True))
    with pytest.raises(HostError):
        tools.make_tree(["a"], name="tools", title="tree")
    monkeypatch.setattr(tools, "unpack_debian", _unpack(calls))
    assert (tools.make_tree(["a"], name="tools", title="tree") / "begun").exists()
    assert len(calls) == 2


def test_other_packages_make_another_tree(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of packages is part of a tree's identity."""
    monkeypatch.setattr(tools, "unpack_debian", _unpack([]))
    assert tools.make_tree(["a"], name="t", title="t") != tools.make_tree(["a", "b"], name="t", title="t")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "Err:1 http://mirror trixie InRelease Could not resolve 'mirror'",
            "no Debian mirror can be reached",
        ),
        ("E: write error - No space left on device", "the disk is full"),
        ("E: Unable to locate package nonsense", "Unable to locate package nonsense"),
    ],
)
def test_reason_of_a_failed_tree_is_named(line: str, sentence: str) -> None:
    """No network, no space and an unknown package are told apart."""
    assert sentence in tools._unpack_error("tree", ["I: running apt-get update...", line]).message


def test_missing_mmdebstrap_is_said_in_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without mmdebstrap is told what to install."""
    monkeypatch.setattr("shutil.which", lambda name: None if name == "mmdebstrap" else f"/usr/bin/{name}")
    with pytest.raises(HostError, match="mmdebstrap not found") as caught:
        tools.unpack_debian(cache / "tree", ["a"], "tree")
    assert "apt-get install mmdebstrap" in (caught.value.hint or "")


def test_tools_of_a_host_without_usual_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's search path comes after the system's, and firmware may be described beside QEMU, as on NixOS."""
    store = tmp_path / "store/qemu"
    (store / "bin").mkdir(parents=True)
    (store / "bin/qemu-system-x86_64").write_text("#!/bin/sh\n")
    (store / "bin/qemu-system-x86_64").chmod(0o755)
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "qemu-system-x86_64").symlink_to(store / "bin/qemu-system-x86_64")
    monkeypatch.setattr(tools, "_SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", str(profile))
    assert f"/nowhere:{profile}" == tools.tool_env()["PATH"]
    assert (Path("/usr/share/qemu/firmware"), store / "share/qemu/firmware") == tools.host_firmware()


def test_sandbox_dies_with_its_parent(tmp_path: Path) -> None:
    """A tool whose parent is killed with SIGKILL is gone with it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [*tools.sandbox(Path("/")), "sh", "-c", f"exec 9>'{fifo}'; echo up; sleep 1000"]
    script = f"import subprocess; subprocess.run({command!r})"
    parent = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize(("words", "kept"), [("Failed to fetch b", ["a.deb"]), ("No space left on device", None)])
def test_failed_tree_leaves_only_what_was_fetched(
    words: str, kept: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tree that could not be made only whole packages are left, and on a full disk not even these."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    tree = tmp_path / "tree"
    archives = tree / "var/cache/apt/archives"
    program.write_text(f"#!/bin/sh\nmkdir -p {archives}\ntouch {archives}/a.deb\necho 'E: {words}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(tools, "tool_env", lambda: {"PATH": f"{program.parent}:{os.environ['PATH']}"})
    with pytest.raises(HostError):
        tools.unpack_debian(tree, ["a"], "tree")
    assert not tree.exists()
    downloads = tmp_path / "tree.downloads"
    assert kept == (sorted(path.name for path in downloads.iterdir()) if downloads.exists() else None)


def test_tool_that_hangs_on_a_full_disk_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that says that the disk is full and stays is ended, and the error says so."""
    monkeypatch.setattr(tools, "_LOOK_SECONDS", 0.05)
    with pytest.raises(ToolError, match="No space left on device") as caught:
        tools.run_in(Path("/"), ["sh", "-c", "echo 'write: No space left on device' >&2; exec sleep 1000"])
    assert "free some space" in (caught.value.hint or "")
