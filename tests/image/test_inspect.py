"""Whole inspections: the good image, and what each fault is called."""

import dataclasses
import io
import json
import os
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from vmtests.causes import Cause
from vmtests.contract import Contract
from vmtests.host.tools import Toolbox
from vmtests.image import fat
from vmtests.image.check import Status, breach
from vmtests.image.inspect import inspect
from vmtests.image.source import Format
from vmtests.sizes import GIB
from vmtests.testing.images import ENTRY, STORE_PATH, SmallImage, kernel, program, table

STORE = "partition `nix-store` (entry 2)"
ENTRY_PATH = "/loader/entries/nixos.conf"


def test_the_good_image_is_ok(good_image: Path, contract: Contract, toolbox: Toolbox) -> None:
    """An image that the project builds obeys the project's contract, and inspecting does not touch it."""
    before = good_image.stat().st_mtime_ns
    found = inspect(good_image, contract, toolbox)
    assert [check.sentence for check in found.checks if check.sentence] == []
    assert found.ok
    assert (Format.RAW, good_image.stat().st_size) == (found.format, found.size)
    assert before == good_image.stat().st_mtime_ns


@pytest.mark.parametrize("form", ["qcow2", "tar.gz"])
def test_the_format_does_not_change_the_truth(form: str, patient: SmallImage) -> None:
    """A disk has the same checks in every format."""
    image = patient.path.with_suffix(f".{form}")
    if form == "qcow2":
        patient.toolbox.run("qemu-img", "convert", "-O", "qcow2", patient.path, image)
    else:
        image = patient.pack()
    found = inspect(image, patient.contract, patient.toolbox)
    assert (form, True) == (found.format.value, found.ok)
    own = [check for check in found.checks if check.subject != "archive"]
    assert list(patient.inspect().checks) == own


def test_a_zeroed_store_is_named(patient: SmallImage) -> None:
    """The superblock of the erofs is looked at."""
    patient.write(patient.start(2) + 1024, bytes(128))
    assert [f"erofs superblock magic is 00000000 on {STORE}"] == patient.sentences()


def test_a_breach_carries_its_cause_and_its_part(patient: SmallImage) -> None:
    """A verdict is joined to what was inspected by these two, whatever the words are."""
    patient.write(patient.start(2) + 1024, bytes(128))
    patient.mtool("mdel", "::/EFI/BOOT/BOOTX64.EFI")
    found = [(check.part, check.cause) for check in patient.inspect().breaches]
    assert [("esp", Cause.BOOTLOADER_MISSING), ("store", Cause.EROFS_SUPERBLOCK)] == found
    assert frozenset({"ESP", "nix-store", "root"}) == patient.inspect().labels


def test_a_zeroed_primary_table_hides_nothing(patient: SmallImage) -> None:
    """With the backup the rest of the disk is inspected all the same."""
    patient.write(512, bytes(512))
    patient.mtool("mdel", "::/EFI/BOOT/BOOTX64.EFI")
    assert patient.sentences() == [
        "primary GPT header: signature is 0000000000000000, not 'EFI PART'; the backup is good",
        "boot loader /EFI/BOOT/BOOTX64.EFI is not on the ESP",
    ]


def test_without_any_table_there_are_only_its_breaches(patient: SmallImage) -> None:
    """A disk that says it has a GPT and has none is the image's fault, not the user's."""
    patient.write(512, bytes(512))
    patient.write(patient.size - 512, bytes(512))
    found = patient.sentences()
    assert len(found) == 2
    assert all("is bad too" in sentence for sentence in found)


def test_a_changed_label_is_named(patient: SmallImage) -> None:
    """What stands in the place of a missing partition is named, and inspected."""
    patient.edit_entry(2, 56, "foo".encode("utf-16-le").ljust(72, b"\0"))
    assert patient.sentences() == ["no partition labelled `nix-store`; there is `foo` in its place"]
    assert any(check.subject == "erofs on partition `foo` (entry 2)" for check in patient.inspect().checks)


def test_a_missing_partition_is_named(patient: SmallImage) -> None:
    """Nothing is made up for a partition that is not there."""
    patient.edit_entry(3, 0, bytes(128))
    assert patient.sentences() == ["no partition labelled `root`"]


def test_the_hint_about_a_partition_says_who_looks_for_it_and_how(patient: SmallImage) -> None:
    """The firmware finds the ESP by its type; stage 1 finds the others by their labels."""
    patient.edit_entry(1, 0, bytes(128))
    patient.edit_entry(3, 0, bytes(128))
    assert [check.hint for check in patient.inspect().breaches if check.what == "label"] == [
        "the firmware starts what is on a partition of type `esp`; in repart.d: Type=esp",
        "stage 1 looks for /dev/disk/by-partlabel/root; in repart.d: Type=root-x86-64, Label=root",
    ]


def test_a_wrong_type_is_named(patient: SmallImage) -> None:
    """The firmware finds the ESP by its type."""
    patient.edit_entry(1, 0, uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le)
    assert patient.sentences() == [
        (
            "partition `ESP` (entry 1) has type 0fc63daf-8483-4772-8e79-3d69d8477de4; "
            "the contract has c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        )
    ]


def test_a_wrong_order_is_named(patient: SmallImage) -> None:
    """The numbers of the partitions follow the contract."""
    array = patient.read(1024, 128 * 128)
    patient.write_entries(array[128:256] + array[:128] + array[256:])
    expected = "partitions are in the order nix-store, ESP, root; the contract has ESP, nix-store, root"
    assert [expected] == patient.sentences()


def test_a_root_that_is_not_last_is_named(patient: SmallImage) -> None:
    """Root grows, so nothing is behind it."""
    first, last = struct.unpack("<QQ", patient.read(1024 + 256 + 32, 16))
    patient.edit_entry(3, 40, struct.pack("<Q", last - 2048))
    other = bytearray(patient.read(1024 + 128, 128))
    other[16:32] = uuid.uuid4().bytes
    other[32:48] = struct.pack("<QQ", last - 2047, last)
    other[56:128] = "more".encode("utf-16-le").ljust(72, b"\0")
    patient.edit_entry(4, 0, bytes(other))
    found = patient.sentences()
    expected = "partition `root` (entry 3) is not the last and cannot grow: partition `more` (entry 4) is behind it"
    assert expected in found
    notes = [check.sentence for check in patient.inspect().checks if check.status is Status.NOTE]
    assert notes == ["partition `more` (entry 4) is not in the contract"]
    assert any("bytes, but the partition has" in sentence for sentence in found)
    assert first < last


def test_a_root_that_is_too_small_is_named(patient: SmallImage) -> None:
    """The contract gives the least size of root."""
    (first,) = struct.unpack("<Q", patient.read(1024 + 256 + 32, 8))
    patient.edit_entry(3, 40, struct.pack("<Q", first + 2047))
    expected = "partition `root` (entry 3) has 1 MiB; the contract asks for 512 MiB at least"
    assert expected == patient.sentences()[0]


def test_a_label_that_is_there_twice_is_named(patient: SmallImage) -> None:
    """Stage 1 finds partitions by label."""
    patient.edit_entry(1, 56, "root".encode("utf-16-le").ljust(72, b"\0"))
    found = patient.sentences()
    assert "two partitions are labelled `root`: entries 1 and 3" in found
    assert "no partition labelled `ESP`" in found


def test_a_size_that_is_no_whole_gib_is_a_note_for_a_disk_and_a_breach_for_an_archive(
    patient: SmallImage,
) -> None:
    """Compute Engine takes whole GiB; QEMU takes any."""
    os.truncate(patient.path, GIB + 4096)
    expected = f"the disk has {GIB + 4096} bytes; Compute Engine takes multiples of 1 GiB only"
    assert patient.sentences() == []
    assert expected in [check.sentence for check in patient.inspect().checks]
    found = inspect(patient.pack(), patient.contract, patient.toolbox)
    assert [expected] == [str(check) for check in found.breaches]


def test_a_missing_boot_loader_is_named(patient: SmallImage) -> None:
    """The firmware starts one file."""
    patient.mtool("mdel", "::/EFI/BOOT/BOOTX64.EFI")
    assert patient.sentences() == ["boot loader /EFI/BOOT/BOOTX64.EFI is not on the ESP"]


def test_a_boot_loader_for_another_machine_is_named(patient: SmallImage) -> None:
    """The boot loader is for x86-64."""
    patient.put("/EFI/BOOT/BOOTX64.EFI", program(machine=0xAA64))
    assert patient.sentences() == [
        ("boot loader /EFI/BOOT/BOOTX64.EFI is no EFI program for x86-64: it is for machine aa64, not 8664 (x86-64)")
    ]


def test_another_entry_is_started_and_checked_as_well(patient: SmallImage) -> None:
    """After a rebuild NixOS has entries of other names."""
    patient.mtool("mmove", f"::{ENTRY_PATH}", "::/loader/entries/nixos-generation-2.conf")
    assert patient.sentences() == []
    patient.mtool("mdel", "::/EFI/nixos/initrd.efi")
    expected = "initrd /EFI/nixos/initrd.efi, named by /loader/entries/nixos-generation-2.conf, is not on the ESP"
    assert patient.sentences() == [expected]


def test_a_missing_entry_is_named_with_what_is_there(patient: SmallImage) -> None:
    """Entries that cannot be started are a hint."""
    patient.mtool("mdel", f"::{ENTRY_PATH}")
    patient.put("/loader/entries/other.conf", b"title nothing\n")
    (found,) = patient.inspect().breaches
    assert f"loader entry {ENTRY_PATH} is not on the ESP, nor a unified kernel image" == found.sentence
    assert found.hint == "there is /loader/entries/other.conf"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "linux /EFI/nixos/kernel.efi",
            "linux /EFI/nixos/other.efi",
            f"kernel /EFI/nixos/other.efi, named by {ENTRY_PATH}, is not on the ESP",
        ),
        ("linux ", "#linux ", f"loader entry {ENTRY_PATH} names no kernel"),
        (
            "initrd /EFI/nixos/initrd.efi",
            "initrd /EFI/nixos/none",
            f"initrd /EFI/nixos/none, named by {ENTRY_PATH}, is not on the ESP",
        ),
        ("initrd ", "#initrd ", f"loader entry {ENTRY_PATH} names no initrd"),
        (f"init={STORE_PATH}/init", "", f"the command line of {ENTRY_PATH} has no init="),
        (
            f"init={STORE_PATH}/init",
            "init=/sbin/init",
            f"the command line of {ENTRY_PATH} has init=/sbin/init, which is not in /nix/store",
        ),
        (
            "ttyS0",
            "hvc0",
            f"the command line of {ENTRY_PATH} has no console=ttyS0: the boot cannot be followed",
        ),
    ],
)
def test_a_fault_of_the_entry_is_named(patient: SmallImage, old: str, new: str, expected: str) -> None:
    """Whatever the entry names is there, and its command line leads into the store."""
    patient.put(ENTRY_PATH, ENTRY.replace(old, new).encode())
    assert [expected] == patient.sentences()


def test_an_init_that_no_store_path_has_is_named(patient: SmallImage) -> None:
    """The path of init= is looked for in the store: in its lower layer, or in the upper one on root."""
    name = f"{'0' * 32}-nosuch"
    patient.put(ENTRY_PATH, ENTRY.replace(STORE_PATH, f"/nix/store/{name}").encode())
    inspected = patient.inspect()
    expected = f"init=/nix/store/{name}/init on the kernel's command line is in no store path of the image"
    assert [expected] == [check.sentence for check in inspected.checks if not check.ok]
    (found,) = (check for check in inspected.checks if not check.ok)
    assert (Cause.INIT_MISSING, "store") == (found.cause, found.part)
    root = f"{patient.path}?offset={patient.start(3)}"
    for directory in ("/nix", "/nix/.rw-store", "/nix/.rw-store/upper", f"/nix/.rw-store/upper/{name}"):
        patient.toolbox.run("debugfs", "-w", "-R", f"mkdir {directory}", root)
    assert [] == patient.sentences()


def test_a_kernel_that_is_none_is_named(patient: SmallImage) -> None:
    """An EFI program that is no Linux does not read an initrd."""
    patient.put("/EFI/nixos/kernel.efi", program())
    expected = "kernel /EFI/nixos/kernel.efi is no Linux for x86: it has no 'HdrS' at byte 0x202"
    assert [expected] == patient.sentences()


def test_a_kernel_that_is_too_old_for_the_store_is_named(patient: SmallImage) -> None:
    """The features of the store are held against the kernel on the ESP."""
    patient.put("/EFI/nixos/kernel.efi", kernel("4.19.0"))
    place = patient.start(2) + 1024
    # Without the checksum's feature no checksum has to be right.
    patient.write(place + 8, bytes(4))
    patient.write(place + 80, struct.pack("<I", 4))
    expected = f"erofs on {STORE} has feature chunked_file, since Linux 5.15; the image's kernel is 4.19"
    assert [expected] == patient.sentences()


def test_an_initrd_in_no_known_format_is_named(patient: SmallImage) -> None:
    """Linux has to unpack the initrd."""
    patient.put("/EFI/nixos/initrd.efi", b"hello world")
    (found,) = patient.sentences()
    assert found == "initrd /EFI/nixos/initrd.efi is in no format that Linux unpacks: it begins with 68656c6c6f20"


def test_an_empty_initrd_is_named(patient: SmallImage) -> None:
    """A file of no bytes is read as one."""
    patient.put("/EFI/nixos/initrd.efi", b"")
    (found,) = patient.sentences()
    assert found == "initrd /EFI/nixos/initrd.efi is empty"


@pytest.mark.parametrize("target", ["/EFI/Linux/nixos.efi", "/EFI/BOOT/BOOTX64.EFI"])
def test_a_unified_kernel_image_takes_the_place_of_an_entry(patient: SmallImage, target: str) -> None:
    """A UKI is a boot loader's entry, or the boot loader itself."""
    patient.mtool("mdel", f"::{ENTRY_PATH}")
    if "Linux" in target:
        patient.mtool("mmd", "::/EFI/Linux")
    line = f"init={STORE_PATH}/init console=ttyS0\n\0\0".encode()
    sections = {".cmdline": line, ".initrd": b"\x28\xb5\x2f\xfd....", ".linux": kernel("6.6.1")}
    patient.put(target, program(sections=sections))
    found = patient.inspect()
    assert [str(check) for check in found.breaches] == []
    assert "6.6.1" in [check.value for check in found.checks if check.what == "kernel release"]


def test_a_stub_that_names_kernel_and_initrd_takes_the_place_of_an_entry(patient: SmallImage) -> None:
    """Lanzaboote's has their paths and hashes where others have them."""
    patient.mtool("mdel", f"::{ENTRY_PATH}")
    patient.mtool("mmd", "::/EFI/Linux")
    line = f"init={STORE_PATH}/init console=ttyS0".encode()
    sections = {".cmdline": line, ".linux": b"\\EFI\\nixos\\kernel.efi", ".linuxh": bytes(32),
                ".initrd": b"\\gone", ".initrdh": bytes(32)}  # fmt: skip
    patient.put("/EFI/Linux/a.efi", program(sections=sections))
    assert patient.sentences() == ["initrd \\gone, named by /EFI/Linux/a.efi, is not on the ESP"]


def test_a_fault_in_a_unified_kernel_image_is_named(patient: SmallImage) -> None:
    """Command line and initrd of a UKI are those of its sections."""
    patient.put("/EFI/BOOT/BOOTX64.EFI", program(sections={".linux": kernel(), ".cmdline": b"console=ttyS0"}))
    path = "/EFI/BOOT/BOOTX64.EFI"
    assert [
        f"unified kernel image {path} has no .initrd section",
        f"the command line of {path} has no init=",
    ] == patient.sentences()


def test_files_that_cannot_be_listed_are_named(patient: SmallImage) -> None:
    """A FAT whose root directory leads nowhere is a breach, not a crash, and the rest is inspected."""
    patient.write(patient.start(1) + 44, struct.pack("<I", 0x0FFFFFF0))
    patient.write(patient.start(2) + 1024, bytes(4))
    found = patient.sentences()
    assert f"erofs superblock magic is 00000000 on {STORE}" == found[-1]
    assert len(found) == 2


def test_a_directory_that_holds_itself_is_named(patient: SmallImage) -> None:
    """Following a circle ends."""
    patient.mtool("mmd", "::/CIRCLE")
    esp = patient.start(1)
    sector = fat.parse(patient.read(esp, 512))
    assert sector is not None
    root = esp + (sector.reserved + sector.fats * sector.fat_sectors) * 512
    entries = patient.read(root, 512)
    place = root + entries.index(b"CIRCLE     ")
    patient.write(place + 26, struct.pack("<H", 2))
    (found,) = patient.sentences()
    assert found.startswith("the files of the ESP cannot be listed: ")


def test_sectors_of_another_size_are_named(tmp_path: Path, contract: Contract, toolbox: Toolbox) -> None:
    """A table for sectors of 4096 bytes is read, and is not what the contract says."""
    (tmp_path / "disk").write_bytes(table([], size=4096).content)
    found = inspect(tmp_path / "disk", contract, toolbox)
    expected = "the GPT has sectors of 4096 bytes; the contract has 512"
    assert str(found.breaches[0]) == expected
    assert "no partition labelled `ESP`" in [str(check) for check in found.breaches]


def test_json_and_the_table_say_the_same(patient: SmallImage) -> None:
    """Programs and people read the same sentences, and neither gets a control character."""
    patient.edit_entry(2, 56, "\x1b[2Jx".encode("utf-16-le").ljust(72, b"\0"))
    found = patient.inspect()
    data = json.loads(json.dumps(found.to_json()))
    sentence = "no partition labelled `nix-store`; there is `\\x1b[2Jx` in its place"
    assert (False, [sentence]) == (data["ok"], data["breaches"])
    assert len(data["checks"]) == len(found.checks)
    shown = io.StringIO()
    found.render(Console(file=shown, width=120))
    hint = "stage 1 looks for /dev/disk/by-partlabel/nix-store; sfdisk --part-label DISK 2 nix-store names it so"
    assert f"breach: {sentence}\n  hint: {hint}\n" in shown.getvalue()
    assert shown.getvalue().endswith(f"{patient.path} (raw, 1 GiB): 1 breach\n")
    assert "\x1b" not in shown.getvalue()


def test_the_table_of_a_good_image_ends_with_ok(good_image: Path, contract: Contract, toolbox: Toolbox) -> None:
    """The last line is the verdict."""
    shown = io.StringIO()
    inspect(good_image, contract, toolbox).render(Console(file=shown, width=120))
    assert shown.getvalue().endswith("(raw, 1 GiB): ok\n")


def test_a_disk_without_a_gpt_breaks_a_contract_of_partitions(
    good_image: Path, contract: Contract, toolbox: Toolbox, tmp_path: Path
) -> None:
    """A disk that has an MBR only may boot, but nothing of the contract is found on it: no false ok."""
    image = tmp_path / "mbr.raw"
    subprocess.run(["cp", "--sparse=always", good_image, image], check=True)
    size = image.stat().st_size
    with image.open("r+b") as disk:
        disk.write(bytes(446) + bytes.fromhex("80202100830000000008000000f81f00") + bytes(48) + b"\x55\xaa")
        disk.write(bytes(16896))
        disk.seek(size - 16896)
        disk.write(bytes(16896))
    found = inspect(image, contract, toolbox)
    assert [check.cause for check in found.breaches] == [
        Cause.GPT_DESTROYED,
        Cause.ESP_MISSING,
        *[Cause.PARTITION_MISSING] * 2,
    ]


def test_what_is_printed_is_about_a_screen(patient: SmallImage) -> None:
    """Of many sentences the first few are shown, and how many more there are; --all shows each."""
    found = patient.inspect()
    many = tuple(breach("disk", "x", number, f"wrong {number}") for number in range(40))
    found = dataclasses.replace(found, checks=many)
    shown, everything = io.StringIO(), io.StringIO()
    found.render(Console(file=shown, width=120))
    found.render(Console(file=everything, width=120), everything=True)
    assert shown.getvalue().count("\n") < 24
    assert "34 more breach lines: --all shows them" in shown.getvalue()
    assert "breach: wrong 39\n" in everything.getvalue()
