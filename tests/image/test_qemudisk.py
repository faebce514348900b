"""What an image of QEMU's formats may name: files beside it."""

import os
import re
from pathlib import Path

import pytest

from tests.image.conftest import refusal
from vmtests.host.tools import Toolbox
from vmtests.image.source import open_disk
from vmtests.sizes import MIB
from vmtests.testing import SmallImage


def test_a_backing_file_from_elsewhere_is_refused(tmp_path: Path, toolbox: Toolbox) -> None:
    """An image from somebody else shows no file of this host."""
    (tmp_path / "home").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    image = tmp_path / "home/x.qcow2"
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image)
    assert refusal(image, toolbox) == f"{image} is backed by {secret}, which is not beside it"
    (tmp_path / "home/near").symlink_to(secret)
    toolbox.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "near", image)
    assert "which is not beside it" in refusal(image, toolbox)
    toolbox.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1/x", image)
    assert refusal(image, toolbox) == f"{image} is backed by nbd://127.0.0.1/x, which is not a file"


def test_a_descriptor_that_points_elsewhere_is_refused(tmp_path: Path, toolbox: Toolbox) -> None:
    """The extents of a VMDK are beside it."""
    image = tmp_path / "x.vmdk"
    text = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
    image.write_text(f'{text}RW 2048 FLAT "/etc/shadow" 0\n')
    assert refusal(image, toolbox) == f"{image} keeps its data in /etc/shadow, which is not beside it"
    image.write_text(f'{text}RW 2048 FLAT "x-flat.vmdk" 0\n')
    assert refusal(image, toolbox) == f"{image} keeps its data in x-flat.vmdk, which does not exist"


@pytest.mark.parametrize("before", ["", " ", "\t", "# nothing\n" * 8000])
@pytest.mark.parametrize("line", ['RW 2048 FLAT "{}" 0', 'RW +2048 FLAT "{}" 0', 'RW 2048 FLAT"{}"'])
def test_a_descriptor_is_read_as_qemu_reads_it(tmp_path: Path, toolbox: Toolbox, before: str, line: str) -> None:
    """Blanks, signs, and whatever else QEMU's sscanf() takes do not hide where an extent is."""
    secret, image = tmp_path / "elsewhere/secret", tmp_path / "home/x.vmdk"
    for path in (secret, image):
        path.parent.mkdir()
    secret.write_bytes(bytes(MIB))
    text = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
    image.write_text(f"{text}{before}{line.format(secret)}\n")
    assert re.search(r"which is not beside it|cannot be opened", refusal(image, toolbox))


def _over_data(image: Path, name: str, toolbox: Toolbox, size: int = MIB) -> Path:
    """Make a qcow2 image that says that its data is in the file `name`."""
    room = os.fspath(image.with_name("x" * 200))
    options = f"data_file={room},data_file_raw=on"
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, str(size))
    image.write_bytes(image.read_bytes().replace(room.encode(), name.encode().ljust(len(room), b"\0")))
    return image


def test_data_beside_a_qcow2_is_read(patient: SmallImage, toolbox: Toolbox) -> None:
    """By its absolute name."""
    image = _over_data(patient.path.with_name("x.qcow2"), str(patient.path), toolbox, patient.size)
    with open_disk(image, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/shadow", "is not beside it"),
        ("file:/etc/shadow", "is not beside it"),
        ("{home}/missing", "does not exist"),
        ("{home}/pipe", "is not a file"),
        ("{home}/link", "is not beside it"),
        ("nbd://127.0.0.1/x", "is not a file"),
        ('json:{{"driver": "file", "filename": "/etc/shadow"}}', "is not a file"),
        ("host_device:/dev/watchdog", "is not a file"),
        ("near", "QEMU looks for in the working directory, and not beside it"),
        ("file:near", "QEMU looks for in the working directory, and not beside it"),
    ],
)
def test_data_of_a_qcow2_from_elsewhere_is_refused_before_qemu_sees_it(
    tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """A file of that name beside the image would hide that QEMU opens the one in the working directory."""
    home = tmp_path / "home"
    home.mkdir()
    image = _over_data(home / "x.qcow2", name.format(home=home), toolbox)
    os.mkfifo(home / "pipe")
    (home / "link").symlink_to(tmp_path / "near")
    for place in (tmp_path, home):
        (place / "near").write_bytes(bytes(MIB))
    monkeypatch.chdir(tmp_path)

    def opened(*_: object, **__: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(toolbox, "read", opened)
    said = refusal(image, toolbox)
    assert said.startswith(f"{image} keeps its data in {name.format(home=home).removeprefix('file:')}, which ")
    assert reason in said
