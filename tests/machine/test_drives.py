"""A machine's further disks, made by the real tools."""

from pathlib import Path

import pytest

from vmtests.errors import HostError, InputError
from vmtests.host import tools
from vmtests.host.firmware import Firmware, FirmwareFile
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image.filesystem import probe
from vmtests.machine import drives
from vmtests.machine.hardware import Disk, FirmwareKind, Hardware
from vmtests.machine.template import Template
from vmtests.sizes import MIB
from vmtests.testing.images import MemoryDisk


@pytest.fixture(scope="module")
def toolbox() -> Toolbox:
    """The tools of this host."""
    return tools.find()


def _made(place: Path, hardware: Hardware, toolbox: Toolbox) -> Template:
    place.mkdir()
    mine = Template(place)
    drives.make(hardware, mine, None, toolbox)
    return mine


def _raw(path: Path, toolbox: Toolbox) -> bytes:
    target = path.with_suffix(".raw")
    toolbox.run("qemu-img", "convert", "-O", "raw", path, target)
    return target.read_bytes()


def test_seed_is_a_fat_that_cloud_init_finds(tmp_path: Path, toolbox: Toolbox) -> None:
    """It is labelled CIDATA, is whole in one file, and has what was handed in."""
    hardware = Hardware(seed={"user-data": b"#cloud-config\n{}\n", "meta-data": b"{}\n"})
    mine = _made(tmp_path / "m", hardware, toolbox)
    (path,) = drives.paths(hardware, mine)
    data = _raw(path, toolbox)
    system = probe(MemoryDisk(data))
    assert system is not None
    assert ("vfat", "CIDATA") == (system.type, system.label)
    said = run_in(toolbox.root("mcopy"), ["mtype", "-i", str(path.with_suffix(".raw")), "::user-data"])
    assert "#cloud-config" in said
    assert not list(tmp_path.glob("m/seed*"))


def test_image_of_a_further_disk_is_never_written(tmp_path: Path, toolbox: Toolbox) -> None:
    """Each machine has an overlay over it; an empty one has the size that was asked for, and the seed comes last."""
    image = tmp_path / "data.raw"
    image.write_bytes(b"x" * MIB)
    hardware = Hardware(disks=(Disk(image=image), Disk(size=3 * MIB)), seed={"user-data": b""})
    mine = _made(tmp_path / "m", hardware, toolbox)
    over, empty, _ = drives.paths(hardware, mine)
    assert [b"x" * MIB, bytes(3 * MIB)] == [_raw(over, toolbox), _raw(empty, toolbox)]
    assert image in drives.readable(hardware, None)


def test_a_disk_that_is_none_is_refused(tmp_path: Path, toolbox: Toolbox) -> None:
    """What is not there is one sentence."""
    with pytest.raises(InputError, match="cannot be read"):
        _made(tmp_path / "m", Hardware(disks=(Disk(image=tmp_path / "none"),)), toolbox)


def test_forks_write_to_their_own(tmp_path: Path, toolbox: Toolbox) -> None:
    """A template keeps every disk, and a fork's are empty overlays over those, which QEMU may read."""
    hardware = Hardware(disks=(Disk(size=MIB),))
    mine = _made(tmp_path / "m", hardware, toolbox)
    image = _disk(mine, tmp_path, toolbox)
    (tmp_path / "t").mkdir()
    kept, fork = Template(tmp_path / "t"), Template(tmp_path / "f")
    drives.keep(hardware, mine, kept, toolbox, image, None)
    fork.directory.mkdir()
    drives.take(hardware, kept, fork)
    (path,) = drives.paths(hardware, fork)
    assert _raw(path, toolbox) == bytes(MIB)
    assert kept.further(1) in drives.readable(hardware, kept)
    # A fork of a fork is laid over what it went on from.
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", kept.disk, fork.disk)
    (tmp_path / "u").mkdir()
    drives.keep(hardware, fork, Template(tmp_path / "u"), toolbox, kept.disk, kept)


def _disk(mine: Template, place: Path, toolbox: Toolbox) -> Path:
    (image := place / "image.raw").write_bytes(bytes(MIB))
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, mine.disk)
    return image


@pytest.mark.parametrize("number", [1, 2, 3], ids=["image", "empty", "seed"])
@pytest.mark.parametrize("backing", ["secret", "nbd://127.0.0.1:1/x"])
def test_further_disk_that_names_other_files_is_not_kept(
    tmp_path: Path, toolbox: Toolbox, number: int, backing: str
) -> None:
    """QEMU, or who has taken it over, can write anything to it: a fork would be shown what it names."""
    (tmp_path / "secret").write_bytes(bytes(MIB))
    (tmp_path / "more.raw").write_bytes(bytes(MIB))
    hardware = Hardware(disks=(Disk(image=tmp_path / "more.raw"), Disk(size=MIB)), seed={"user-data": b""})
    mine = _made(tmp_path / "m", hardware, toolbox)
    image = _disk(mine, tmp_path, toolbox)
    path = drives.paths(hardware, mine)[number - 1]
    named = backing if "://" in backing else tmp_path / backing
    toolbox.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", named, path)
    (tmp_path / "t").mkdir()
    with pytest.raises(HostError, match="names other files than it was made with"):
        drives.keep(hardware, mine, Template(tmp_path / "t"), toolbox, image, None)


def test_firmware_begins_with_the_variables_that_are_named(tmp_path: Path, toolbox: Toolbox) -> None:
    """They are copied, and those of another firmware are refused with the way to make them."""
    template, own = tmp_path / "VARS.fd", tmp_path / "mine.fd"
    template.write_bytes(bytes(4096))
    own.write_bytes(b"k" * 4096)
    file = FirmwareFile(inside=template, outside=template, format="raw")
    firmware = Firmware(code=file, vars_template=file, descriptor=template, description="x", features=frozenset())
    mine = Template(tmp_path)
    drives.make(Hardware(secure_boot=True, firmware_vars=own), mine, firmware, toolbox)
    assert mine.variables.read_bytes() == own.read_bytes()
    own.write_bytes(b"k")
    with pytest.raises(InputError, match="has 1 bytes, and the variables of x have 4096") as failed:
        drives.make(Hardware(firmware_vars=own), mine, firmware, toolbox)
    assert "virt-fw-vars" in str(failed.value.hint)
    with pytest.raises(InputError, match="no variables"):
        Hardware(firmware_vars=own, firmware=FirmwareKind.BIOS)
