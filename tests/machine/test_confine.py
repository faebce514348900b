"""What a machine's programs see of the host."""

import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vmtests.host.firmware import Firmware
from vmtests.host.sandbox import View, sandbox, tool_env
from vmtests.machine.confine import disk_files, machine_view
from vmtests.machine.template import Template


def qcow2(path: Path, *, backing: bytes = b"", data: bytes = b"", version: int = 3) -> Path:
    """Write the head of a qcow2 file: QEMU's docs/interop/qcow2.txt."""
    length = 104 if version > 2 else 72
    extension = (
        struct.pack(">II", 0x44415441, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0") if data else b""
    )
    extension += bytes(8)
    head = struct.pack(">4sIQII", b"QFI\xfb", version, length + len(extension), len(backing), 16)
    head = head.ljust(100, b"\0") + length.to_bytes(4, "big") if version > 2 else head.ljust(72, b"\0")
    path.write_bytes(head + extension + backing)
    return path


def test_the_whole_chain_is_shown(tmp_path: Path) -> None:
    """Every file of a disk is found: relative, absolute, `file:`, and where the data lies elsewhere."""
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.write_bytes(b"x" * 512)
    data.write_bytes(b"")
    oldest = qcow2(tmp_path / "c", backing=b"raw", version=2)
    older = qcow2(tmp_path / "b", backing=b"file:" + bytes(oldest), data=b"data")
    assert set(disk_files(qcow2(tmp_path / "a", backing=b"b"))) == {tmp_path / "a", older, oldest, raw, data}


@pytest.mark.parametrize(
    "backing",
    [b'json:{"driver":"file"}', b"nbd://host/x", b"a", b"none", b"\0", b".", b"/", b"pipe", b"/dev/tty", b"x" * 300],
)
def test_what_is_no_file_is_not_shown(tmp_path: Path, backing: bytes) -> None:
    """A chain ends that leads to itself, nothing, a network, a directory, a pipe, a device, or has a name too long."""
    os.mkfifo(tmp_path / "pipe")
    assert disk_files(qcow2(tmp_path / "a", backing=backing)) == [tmp_path / "a"]


def test_name_at_no_place_is_none(tmp_path: Path) -> None:
    """A header may say that the name is where no file has a byte."""
    for place in (1 << 63, (1 << 64) - 1, (1 << 63) - 1, 1 << 40):
        disk = qcow2(tmp_path / "a", backing=b"b")
        with disk.open("r+b") as file:
            file.seek(8)
            file.write(place.to_bytes(8, "big"))
        assert disk_files(disk) == [disk]


def test_raw_disk_names_nothing(tmp_path: Path) -> None:
    """A file without qcow2's magic is one file, also an empty one."""
    (tmp_path / "a").write_bytes(b"")
    assert disk_files(tmp_path / "a") == [tmp_path / "a"]


def test_machine_sees_its_image_and_changes_its_own(tmp_path: Path, ovmf: Firmware) -> None:
    """The image can be read only; a disk that is the machine's own can be written, and is not hidden by the other."""
    image, own = qcow2(tmp_path / "image"), tmp_path / "own"
    assert machine_view(ovmf, (image,), None, (own,)) == View(readable=(image,), writable=(own,))
    assert machine_view(ovmf, (image,), None, (image,)) == View(writable=(image,))
    template = Template(tmp_path)
    assert machine_view(ovmf, (image,), template, ()).readable == (image, template.ram, template.state)


def test_firmware_of_the_host_is_shown(tmp_path: Path, ovmf: Firmware) -> None:
    """Firmware that is not in a tree may lie anywhere on the host."""
    here = replace(ovmf, code=replace(ovmf.code, inside=Path("/opt/CODE.fd"), outside=Path("/opt/CODE.fd")))
    assert machine_view(here, (), None, ()).readable == (Path("/opt/CODE.fd"),)


Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def confined(tmp_path: Path, hiding: None) -> Run:
    """Run a shell script in the host's own system with a view: `seen` to read, `mine` to write."""
    (tmp_path / "seen").write_text("seen", encoding="utf-8")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    view = View(readable=(tmp_path / "seen",), writable=(tmp_path / "mine",))

    def run(script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*sandbox(Path("/"), view), "sh", "-c", script],
            capture_output=True,
            encoding="utf-8",
            env=tool_env(),
            check=False,
            cwd=tmp_path,
        )

    return run


def test_view_is_all_there_is(confined: Run, tmp_path: Path) -> None:
    """What is shown is read and written; what is beside it, and people's homes and secrets, are not there."""
    script = f"cat {tmp_path}/seen && echo written > {tmp_path}/mine/file && ls -A {tmp_path} /tmp/.. && ls -A /tmp/"
    result = confined(script)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mine/file").read_text(encoding="utf-8") == "written\n"
    assert "secret" not in result.stdout
    assert not {"root", "home", "var/lib", "run", "srv"} & set(result.stdout.split())
    for hidden in (
        tmp_path / "secret",
        Path("/etc/shadow"),
        Path.home() / ".ssh",
        Path("/sys/class"),
        Path("/dev/mem"),
    ):
        assert confined(f"cat {hidden} || ls {hidden}").returncode != 0


@pytest.mark.parametrize(
    "script", ["echo x > {0}/seen", "rm -f {0}/seen", "touch /usr/x", "mount -t tmpfs x {0}/mine"]
)
def test_nothing_else_is_changed(confined: Run, tmp_path: Path, script: str) -> None:
    """Not what is shown to be read, not the system, and no mount is made: also root has no capability there."""
    assert confined(script.format(tmp_path)).returncode != 0
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "seen"


def test_other_processes_are_not_there(confined: Run) -> None:
    """No process of the host is seen or signalled, and no capability is held."""
    result = confined(f"kill -0 {os.getppid()} 2>/dev/null && echo alive; grep CapEff /proc/self/status")
    assert result.stdout.split() == ["CapEff:", "0000000000000000"]
