"""Breaking a copy of a disk: every fault's steps can be done, and each kind of step does what it says."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.errors import HostError, InputError
from vmtests.faults import catalogue as faults
from vmtests.faults.apply import Broken, broken, keep
from vmtests.faults.catalogue import (
    Esp,
    Fault,
    Feature,
    Flip,
    Initrd,
    Machine,
    Options,
    Overwrite,
    Root,
    Sign,
    Step,
    Table,
)
from vmtests.host import tools
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image.inspect import inspect

from .conftest import SYSTEM

Break = Callable[..., Broken]


@pytest.fixture
def break_(disk: Path, contract: Contract, toolbox: Toolbox, tmp_path: Path) -> Iterator[Break]:
    """Breaks a copy of the small disk with some steps."""
    with ExitStack() as stack:

        def make(*steps: Step) -> Broken:
            fault = Fault(name="test", broken="", steps=steps, stage=Stage.READY)
            return stack.enter_context(broken(fault, disk, tmp_path, contract, toolbox))

        yield make


def _on_esp(made: Broken, path: str, toolbox: Toolbox) -> str:
    return run_in(toolbox.root("mcopy"), ["mtype", "-i", f"{made.disk}@@1048576", f"::{path}"])


@pytest.mark.parametrize("area", ["firmware", "bootloader", "kernel", "stage1", "stage2", "host"])
def test_every_fault_can_be_done_and_leaves_the_image_alone(
    area: str, disk: Path, contract: Contract, toolbox: Toolbox, tmp_path: Path
) -> None:
    """Each fault of the catalogue breaks a copy; the image is not written, and nothing is left behind."""
    before = disk.stat().st_mtime_ns
    for fault in faults.catalogue().values():
        if fault.area == area:
            with broken(fault, disk, tmp_path, contract, toolbox) as made:
                assert disk.stat().st_size == made.disk.stat().st_size
    assert before == disk.stat().st_mtime_ns
    assert [] == list(tmp_path.iterdir())


def test_broken_disk_can_be_kept(disk: Path, contract: Contract, toolbox: Toolbox, tmp_path: Path) -> None:
    """It is where it was asked for, whole and alone; never over another file, and not of a fault of the machine."""
    fault = faults.catalogue()["root-label-wrong"]
    out = tmp_path / "broken.raw"
    keep(fault, disk, out, contract, toolbox)
    assert any("rooot" in str(breach) for breach in inspect(out, contract, toolbox).breaches)
    assert [out] == list(tmp_path.iterdir())
    with pytest.raises(InputError, match="is there already"):
        keep(fault, disk, out, contract, toolbox)
    with pytest.raises(InputError, match="breaks the machine or its host"):
        keep(faults.catalogue()["qemu-killed"], disk, tmp_path / "other.raw", contract, toolbox)
    with pytest.raises(InputError, match="cannot be written"):
        keep(fault, disk, tmp_path / "nowhere/broken.raw", contract, toolbox)


def test_bytes_count_from_either_end_of_a_partition(break_: Break) -> None:
    """`overwrite` with a negative offset writes before the end, here of the disk."""
    made = break_(Overwrite(offset=446, hex="80"), Overwrite(offset=-512, size=512))
    content = made.disk.open("rb")
    with content:
        assert b"\x80" == content.read(447)[446:]
        content.seek(-512, 2)
        assert bytes(512) == content.read()


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (Table(partition="store", label="nix-stoer"), "no partition labelled `nix-store`; there is `nix-stoer`"),
        (Table(partition="esp", delete=True), "no partition labelled `ESP`"),
        (Table(partition="root", type="0FC63DAF-8483-4772-8E79-3D69D8477DE4"), "has type 0fc63daf"),
        (Feature(incompat=1 << 30), "has unknown features: incompat bits 0x40000000"),
        (Flip(at="root-inode", bit=6), "erofs superblock checksum is"),
        (Root(commands=("feature read-only",)), "is marked read-only"),
        (Esp(remove=("{kernel}",)), "kernel /EFI/nixos/kernel.efi, named by"),
        (Options(remove=("console=",)), "has no console=ttyS0"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Step) else "",
)
def test_inspection_sees_what_a_step_broke(
    break_: Break, contract: Contract, toolbox: Toolbox, step: Step, sentence: str
) -> None:
    """A step breaks what it says, and leaves the rest of the structure good."""
    assert any(sentence in str(breach) for breach in inspect(break_(step).disk, contract, toolbox).breaches)


def test_files_of_root_come_with_their_directories(break_: Break) -> None:
    """A file and a symlink are there where no directory was; what cannot be written is no broken image."""
    break_(Root(write={"/a/b/file": "text"}, symlink={"/c/d/link": "../file"}))
    with pytest.raises(HostError, match=r"could not write /a/b/file, /c/d/link"):
        break_(Root(write={"/a/b/file": "text"}, symlink={"/c/d/link": "x"}, commands=("rm /c/d/link",)))


def test_options_change_words_of_the_entry(break_: Break, toolbox: Toolbox) -> None:
    """Words that begin so go, others are added behind, and the rest of the entry stays."""
    made = break_(Options(remove=("root=", "init="), add=("root=LABEL=x",)))
    entry = _on_esp(made, "/loader/entries/nixos.conf", toolbox)
    assert "options console=ttyS0,115200n8 root=LABEL=x\n" in entry
    assert "linux /EFI/nixos/kernel.efi\n" in entry


def test_programs_are_signed_with_the_key_that_the_machine_has(break_: Break, contract: Contract) -> None:
    """The loader grows by its signature, the kernel stays, and the firmware's variables are those with the key."""
    made = break_(Sign(files=("{loader}",)), Machine(secure_boot=True, own_keys=True))
    assert made.hardware.firmware_vars is not None
    assert b"snakeoil" in made.hardware.firmware_vars.name.encode()
    listing = run_in(tools.find().root("mcopy"), ["mdir", "-/", "-i", f"{made.disk}@@1048576", "::/EFI"])
    loader, kernel = (
        next(int("".join(line.split()[2:3])) for line in listing.splitlines() if line.startswith(name))
        for name in ("BOOTX64", "kernel")
    )
    assert kernel < loader < kernel + 4096


def test_a_bit_of_a_text_is_flipped(break_: Break) -> None:
    """A pattern finds the bytes of a file in the store, and one bit of the first is turned."""
    made = break_(Flip(at=f"#!(?={re.escape(SYSTEM)})", bit=0))
    with made.disk.open("rb") as disk:
        disk.seek(129 << 20)
        assert f'"!{SYSTEM}'.encode() in disk.read(32 << 20)


def test_a_machine_has_the_faults_that_are_asked_for(break_: Break) -> None:
    """Memory, firmware and disk faults go to the hardware; a disk that may not grow is as large as its image."""
    made = break_(Machine(memory_mib=48, secure_boot=True, grow=False, read_error="superblock", disk_full=True))
    hardware = made.hardware
    assert (48, True, made.disk.stat().st_size) == (hardware.memory_mib, hardware.secure_boot, hardware.disk_size)
    assert ((129 << 20) + 1024) // 512 == hardware.disk_faults.bad_sector
    assert hardware.disk_faults.full


@pytest.mark.parametrize(
    "step",
    [
        Initrd(remove=("*/nosuch.ko",)),
        Initrd(replace={"*-fstab": {"nosuch": "x"}}),
        Initrd(replace={"*/nosuch": {"nosuch": "x"}}),
        Flip(at="nothing like this"),
        Overwrite(partition="nosuch", offset=0, size=1),
    ],
)
def test_what_is_not_there_cannot_be_broken(break_: Break, step: Step) -> None:
    """A step that would change nothing is an error, not a fault that proves nothing."""
    with pytest.raises(InputError):
        break_(step)


def test_initrd_that_unpacks_to_too_much_is_not_unpacked(break_: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of zstd may be terabytes of zeros; nothing of them gets onto the disk."""
    monkeypatch.setattr("vmtests.faults.apply._INITRD_LIMIT", 4 << 20)
    with pytest.raises(InputError, match="too large to be changed"):
        break_(Initrd(ballast=8), Initrd())
