"""Disks that others have laid out: what boots is no breach, and what does not is named."""

import gzip
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from vmtests.causes import Cause
from vmtests.errors import InputError
from vmtests.faults import cpio
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image.check import Status
from vmtests.image.inspect import Inspection, inspect
from vmtests.sizes import MIB
from vmtests.testing.images import kernel, program

ROOT = "11111111-2222-4333-8444-555555555555"
BOOT = program(sections={".sdmagic": b"#### LoaderInfo: systemd-boot 257 ####"})
GRUB = program(sections={"mods": b"mimg"})
SHIM = program(sections={".sbat": b"sbat,1,SBAT Version,sbat,1,https://x\nshim,4,UEFI shim,shim,1,https://x\n"})
CPIO = b"070701" + bytes(10)
ENTRY = f"linux /vmlinuz\ninitrd /initrd\noptions root=UUID={ROOT} console=ttyS0\n".encode()
MENU = f"""set default="0"
if [ x$feature_all_video_module = xy ]; then
  insmod all_video
fi
menuentry 'Debian' --class debian $menuentry_id_option 'gnulinux-simple' {{
  search --no-floppy --fs-uuid --set=root {ROOT}
  linux /boot/vmlinuz root=UUID={ROOT} ro console=ttyS0 ${{extra}}
  initrd /boot/initrd
}}
"""


class Maker:
    """Makes a disk with an ESP of 33 MiB and an ext4 of 16 MiB."""

    def __init__(self, place: Path, toolbox: Toolbox) -> None:
        self._place = place
        self._toolbox = toolbox
        self.path = place / "disk.raw"

    def make(
        self, esp: Mapping[str, bytes], root: Mapping[str, bytes | None] | None = None, *, table: str = "gpt"
    ) -> None:
        """Write the disk; `table` is sfdisk's label."""
        with self.path.open("wb") as file:
            file.truncate(52 * MIB)
        kinds = ("uefi", "linux") if table == "gpt" else ("ef", "83")
        script = (
            f"label: {table}\nstart=2048,size={33 * 2048},type={kinds[0]},name=boot\n"
            if table == "gpt"
            else (f"label: {table}\nstart=2048,size={33 * 2048},type={kinds[0]}\n")
        )
        self._toolbox.run("sfdisk", "-q", self.path, stdin=f"{script}size={16 * 2048},type={kinds[1]}\n")
        at = f"{self.path}@@{MIB}"
        tree = self._toolbox.root("mcopy")
        run_in(tree, ["mkfs.vfat", "-F32", "-s1", f"--offset={2048}", str(self.path), str(33 * 1024)])
        made: set[str] = set()
        for name, content in esp.items():
            parts = name.strip("/").split("/")[:-1]
            for index in range(len(parts)):
                if (directory := "/".join(parts[: index + 1])) not in made:
                    made.add(directory)
                    run_in(tree, ["mmd", "-i", at, f"::/{directory}"])
            (self._place / "file").write_bytes(content)
            run_in(tree, ["mcopy", "-i", at, str(self._place / "file"), f"::{name}"])
        files = self._place / "root"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        for name, data in {"/sbin/init": b"x", **(root or {})}.items():
            if data is not None:
                (files / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                (files / name.lstrip("/")).write_bytes(data)
        ext4 = self._place / "ext4"
        with ext4.open("wb") as file:
            file.truncate(16 * MIB)
        self._toolbox.run("mkfs.ext4", "-q", "-U", ROOT, "-L", "system", "-d", files, ext4)
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), ext4.read_bytes(), 34 * MIB)

    def poke(self, offset: int, data: bytes) -> None:
        """Write over the disk."""
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    def inspect(self) -> Inspection:
        """Inspect it without a contract."""
        return inspect(self.path, None, self._toolbox)

    def said(self) -> list[str]:
        """Return the sentences of the breaches."""
        return [str(check) for check in self.inspect().breaches]


@pytest.fixture
def maker(tmp_path: Path, toolbox: Toolbox) -> Maker:
    """Makes a disk."""
    return Maker(tmp_path, toolbox)


def _whole_kernel(inside: bytes) -> bytes:
    """A bzImage with its payload, which has `inside` somewhere."""
    image = bytearray(kernel())
    payload = gzip.compress(b"\x7fELF" + inside) + bytes(4)
    start = (image[0x1F1] or 4) * 512 + 512
    struct.pack_into("<II", image, 0x248, len(image) - start, len(payload))
    return bytes(image) + payload


def _member(name: bytes) -> bytes:
    return b"070701" + b"0" * 104 + name + b"\0"


# What usr/default_cpio_list makes.
EMPTY_INITRAMFS = b"".join(map(_member, (b"dev", b"dev/console", b"root", b"TRAILER!!!")))


def _large_kernel() -> bytes:
    image = bytearray(program(sections={".text": bytes(8192)}))
    image[0x202:0x206] = b"HdrS"
    return bytes(image)


GOOD = {
    "/EFI/BOOT/BOOTX64.EFI": BOOT,
    "/loader/entries/debian.conf": ENTRY,
    "/vmlinuz": kernel(),
    "/initrd": CPIO,
}


def test_systemd_boot_with_an_entry_is_followed_to_the_kernel(maker: Maker) -> None:
    """A disk with other labels, without a store, is good; so is one whose table is an MBR's."""
    for table in ("gpt", "dos"):
        maker.make(GOOD, table=table)
        found = maker.inspect()
        assert [str(check) for check in found.checks if check.status is not Status.OK] == []
        way = "/EFI/BOOT/BOOTX64.EFI (systemd-boot) → /loader/entries/debian.conf → Linux 6.12.1-test"
        assert " → ".join(found.steps) == way
        systems = [volume.system.type for volume in found.volumes if volume.system is not None]
        assert systems == ["vfat", "ext4"]


def test_grub_is_followed_through_its_menu(maker: Maker) -> None:
    """Its configuration is on the root file system, and so are kernel and initrd; shim may stand in front."""
    root = {"/boot/grub/grub.cfg": MENU.encode(), "/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
    maker.make({"/EFI/BOOT/BOOTX64.EFI": SHIM, "/EFI/BOOT/grubx64.efi": GRUB}, root)
    assert maker.said() == []
    assert maker.inspect().steps[-2:] == ("/boot/grub/grub.cfg 'Debian'", "Linux 6.12.1-test")
    maker.make(
        {"/EFI/BOOT/BOOTX64.EFI": GRUB},
        {**root, "/boot/grub/grub.cfg": MENU.replace("initrd /", "initrd /x").encode()},
    )
    assert maker.said() == ["initrd /xboot/initrd, named by /boot/grub/grub.cfg, is not on partition 2"]
    maker.make({"/EFI/BOOT/BOOTX64.EFI": SHIM}, root)
    assert maker.said() == ["shim finds no /EFI/BOOT/grubx64.efi to start"]


@pytest.mark.parametrize(
    ("changed", "cause", "words"),
    [
        ({"/EFI/BOOT/BOOTX64.EFI": None}, Cause.BOOTLOADER_MISSING, "/EFI/BOOT/BOOTX64.EFI is not on the ESP"),
        ({"/vmlinuz": None}, Cause.KERNEL_MISSING, "kernel /vmlinuz, named by /loader/entries/debian.conf, is not on"),
        ({"/initrd": None}, Cause.INITRD_MISSING, "initrd /initrd, named by"),
        ({"/initrd": bytes(4096)}, Cause.INITRD_INVALID, "is in no format that Linux unpacks"),
        ({"/loader/entries/debian.conf": None}, Cause.ENTRY_MISSING, "systemd-boot has nothing to start"),
        (
            {"/loader/entries/debian.conf": ENTRY.replace(b"1111-2222", b"1111-0000")},
            Cause.PARTITION_MISSING,
            "root=UUID=11111111-0000-4333-8444-555555555555 of /loader/entries/debian.conf leads nowhere",
        ),
        (
            {
                "/loader/entries/debian.conf": ENTRY.replace(b"initrd /initrd\n", b""),
                "/vmlinuz": _whole_kernel(EMPTY_INITRAMFS),
            },
            Cause.INITRD_MISSING,
            "needs an initrd",
        ),
        (
            {"/loader/entries/debian.conf": ENTRY + b"devicetree /board.dtb\n"},
            Cause.BOOTLOADER_ERROR,
            "devicetree /board.dtb, named by /loader/entries/debian.conf, is not on",
        ),
        (
            {"/EFI/BOOT/BOOTX64.EFI": program(sections={})},
            Cause.BOOTLOADER_INVALID,
            "it has no sections",
        ),
        (
            {"/loader/entries/debian.conf": ENTRY.replace(b" console", b" roothash=" + b"ab" * 32 + b" console")},
            Cause.PARTITION_MISSING,
            "roothash= of /loader/entries/debian.conf is that of other partitions",
        ),
        ({"/vmlinuz": _large_kernel()[:4096]}, Cause.KERNEL_INVALID, "kernel /vmlinuz was cut: by its headers it has"),
        ({"/EFI/BOOT/BOOTX64.EFI": BOOT[:-4]}, Cause.BOOTLOADER_INVALID, "/EFI/BOOT/BOOTX64.EFI was cut"),
        (
            {"/loader/entries/debian.conf": ENTRY.replace(f"UUID={ROOT}".encode(), b"/dev/sda7")},
            Cause.PARTITION_MISSING,
            "root=/dev/sda7 of /loader/entries/debian.conf leads nowhere: the disk has 1, 2",
        ),
        (
            {"/loader/entries/debian.conf": b"linux /vmlinuz\noptions root=/dev/sda2 init=/nosuch console=ttyS0\n"},
            Cause.INIT_MISSING,
            "nothing is there to be started on partition 2, the root of /loader/entries/debian.conf: no /nosuch",
        ),
        (
            {"/loader/entries/debian.conf": b"efi /vmlinuz\noptions initrd=\\gone console=ttyS0\n"},
            Cause.INITRD_MISSING,
            "initrd /gone, named by /vmlinuz",
        ),
    ],
)
def test_what_stops_a_boot_is_a_breach_with_its_cause(
    changed: dict[str, bytes | None], cause: Cause, words: str, maker: Maker
) -> None:
    """One sentence, which names the file."""
    files = {name: content for name, content in {**GOOD, **changed}.items() if content is not None}
    maker.make(files)
    (found,) = maker.inspect().breaches
    assert found.cause is cause
    assert words in str(found)


def test_a_kernel_may_have_its_initramfs_in_itself(maker: Maker) -> None:
    """What only an initrd can do is no fault where that cannot be told."""
    maker.make({**GOOD, "/loader/entries/debian.conf": ENTRY.replace(b"initrd /initrd\n", b""),
                "/vmlinuz": _whole_kernel(b"something else")})  # fmt: skip
    found = maker.inspect()
    assert found.ok
    assert any("unless one is built into the kernel" in str(check) for check in found.checks)


def test_a_root_that_nothing_mounts_is_named(maker: Maker) -> None:
    """An empty partition, or swap: an initrd may fill the one, and without any neither is mounted."""
    line = b"linux /vmlinuz\noptions root=/dev/sda2 console=ttyS0\n"
    files = {**GOOD, "/loader/entries/debian.conf": line, "/vmlinuz": _whole_kernel(EMPTY_INITRAMFS)}
    for head, words in ((b"", "has no file system"), (bytes(4086) + b"SWAPSPACE2", "is swap")):
        maker.make(files)
        maker.poke(34 * MIB, head.ljust(MIB, b"\0"))
        (found,) = maker.inspect().breaches
        assert found.cause is Cause.MOUNT_FAILED
        assert f"is partition 2, which {words}: without an initrd nothing mounts it" in str(found)
    maker.make({**GOOD, "/loader/entries/debian.conf": line.replace(b"options", b"initrd /initrd\noptions")})
    maker.poke(34 * MIB, bytes(MIB))
    assert maker.inspect().ok


def test_a_disk_for_another_board_is_called_so(maker: Maker) -> None:
    """A Raspberry Pi's, on a FAT that is no ESP: grub-install would not help."""
    maker.make({"/start4.elf": b"x", "/config.txt": b"x"}, table="dos")
    maker.poke(446 + 4, b"\x0c")
    (found,) = maker.inspect().breaches
    assert found.cause is Cause.ESP_MISSING
    assert "it is for another machine: partition 1 has /start4.elf, which a Raspberry Pi starts" in str(found)


def test_a_menu_that_grub_does_not_read_counts_for_nothing(maker: Maker) -> None:
    """The configuration in its prefix hands over to root's; a stale one beside it is read by nobody."""
    esp = {
        "/EFI/BOOT/BOOTX64.EFI": program(sections={"mods": b"mimg\0/EFI/debian\0"}),
        "/EFI/BOOT/grub.cfg": b"menuentry 'old' {\n linux /gone\n}\n",
        "/EFI/debian/grub.cfg": f"search.fs_uuid {ROOT} root\nconfigfile ($root)/boot/grub/grub.cfg\n".encode(),
    }
    root = {"/boot/grub/grub.cfg": MENU.encode(), "/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
    maker.make(esp, root)
    assert maker.said() == []


def test_grub_goes_on_to_what_its_configuration_names(maker: Maker) -> None:
    """That is the menu, whatever its name, and wherever another one lies."""
    stub = f"search.fs_uuid {ROOT} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/custom.cfg\n".encode()
    esp = {"/EFI/BOOT/BOOTX64.EFI": GRUB, "/EFI/BOOT/grub.cfg": stub}
    root = {"/boot/vmlinuz": kernel(), "/boot/initrd": CPIO, "/boot/grub/custom.cfg": MENU.encode()}
    maker.make(esp, {**root, "/boot/grub/grub.cfg": MENU.replace("/boot/vmlinuz", "/gone").encode()})
    assert maker.said() == []
    here = MENU.replace("/boot/", "/").replace(f"search --no-floppy --fs-uuid --set=root {ROOT}", "true").encode()
    files = {"/EFI/BOOT/grub.cfg": b"source /grub/x.cfg\n", "/grub/x.cfg": b"configfile /m.cfg\n", "/m.cfg": here}
    maker.make({**esp, **files, "/initrd": CPIO})
    assert maker.said() == ["kernel /vmlinuz, named by /m.cfg, is not on partition 1 `boot`"]


def test_grub_falls_back_where_it_is_told_to(maker: Maker) -> None:
    """An entry whose kernel is not there costs no boot where `fallback` names one that has it."""
    entry = MENU.partition("\n")[2]
    menu = f"set default=0\nset fallback='1 2'\n{entry.replace('/boot/vmlinuz', '/gone')}" + entry
    files = {"/boot/grub/grub.cfg": menu.encode(), "/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
    maker.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, files)
    inspection = maker.inspect()
    assert inspection.breaches == ()
    assert any("GRUB falls back to entry 1" in str(check) for check in inspection.checks)
    files["/boot/grub/grub.cfg"] = menu.replace("/boot/vmlinuz", "/gone").encode()
    maker.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, files)
    assert any("kernel /gone" in said for said in maker.said())


def test_an_initrd_that_hands_over_needs_an_init_on_root(maker: Maker) -> None:
    """One that may be the whole system does not, and what could be mounted below root may have it."""
    usual = _archive("scripts/local")
    maker.make({**GOOD, "/initrd": usual}, {"/sbin/init": b"x"})
    assert maker.said() == []
    maker.make({**GOOD, "/initrd": usual}, {"/etc/hostname": b"x", "/sbin/init": None})
    (found,) = maker.inspect().breaches
    assert found.cause is Cause.INIT_MISSING
    for names in (("scripts/local", "scripts/local-bottom/overlayroot"), ("bin/busybox",)):
        maker.make({**GOOD, "/initrd": _archive(*names)}, {"/sbin/init": None})
        assert maker.said() == []
        assert any("the initrd has to be the whole system" in str(check) for check in maker.inspect().checks)


def _archive(*names: str) -> bytes:
    init = cpio.Member(name="init", mode=0o100755, data=b"\x7fELF")
    return cpio.pack([init, *(cpio.Member(name=name, mode=0o100644, data=b"") for name in names)])


def test_other_boot_loaders_are_followed_to_their_kernel(maker: Maker) -> None:
    """EXTLINUX under a BIOS, Limine, and GRUB by entries of the Boot Loader Specification."""
    label = f"DEFAULT l\nLABEL l\n LINUX ../vmlinuz\n INITRD ../initrd\n APPEND root=UUID={ROOT} console=ttyS0\n"
    root = {"/boot/extlinux/extlinux.conf": label.encode(), "/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
    maker.make({"/readme": b"x"}, root, table="dos")
    maker.poke(0, b"\xeb\x63\x90 Missing operating system")
    assert maker.inspect().steps == ("BIOS: SYSLINUX", "/boot/extlinux/extlinux.conf 'l'", "Linux 6.12.1-test")
    config = b"/Linux\n protocol: linux\n path: boot():/gone\n module_path: boot():/initrd\n"
    maker.make({"/EFI/BOOT/BOOTX64.EFI": program(sections={".text": b"Limine 9"}), "/limine.conf": config})
    assert maker.said() == ["kernel /gone, named by /limine.conf, is not on partition 1 `boot`"]
    entries = {f"/loader/entries/a-6.{n}.conf": b"linux /k%d\noptions $kernelopts\n" % n for n in (9, 10)}
    blscfg = {"/grub2/grub.cfg": b"load_env\nset default=$saved_entry\nblscfg\n", "/k9": kernel("6.9.0"), **entries}
    maker.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, blscfg)
    assert maker.said() == ["kernel /k10, named by /grub2/grub.cfg, is not on partition 2"]
    block = f"# GRUB Environment Block\nsaved_entry=a-6.9\nkernelopts=root=LABEL=gone console=ttyS0\n{'#' * 900}"
    maker.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, {**blscfg, "/grub2/grubenv": block.encode()})
    assert maker.said() == ["root=LABEL=gone of /grub2/grub.cfg leads nowhere: the disk has system"]


def test_a_protective_mbr_with_the_boot_flag_is_noted(maker: Maker) -> None:
    """OVMF boots from such a disk, so it is no breach."""
    maker.make(GOOD)
    maker.poke(446, b"\x80")
    inspection = maker.inspect()
    assert inspection.breaches == ()
    assert any("has the boot flag" in str(check) for check in inspection.checks)


def test_a_protective_mbr_that_begins_elsewhere_is_named(maker: Maker) -> None:
    """EDK2 ignores that table; under a BIOS the disk boots, unless Linux looks for its root there."""
    maker.make(GOOD)
    maker.poke(454, b"\2")
    (found,) = maker.inspect().breaches
    assert found.cause is Cause.GPT_DESTROYED
    assert str(found).startswith("the protective MBR does not begin in sector 1")
    maker.poke(0, b"\xeb\x63\x90 GRUB ")
    assert maker.said() == []
    files = {"/boot/grub/grub.cfg": MENU.encode(), "/boot/vmlinuz": kernel("6.12.1"), "/boot/initrd": CPIO}
    for menu, breaches in ((MENU, 1), (MENU.replace("console=ttyS0", "console=ttyS0 gpt"), 0)):
        maker.make(GOOD, {**files, "/boot/grub/grub.cfg": menu.encode()})
        maker.poke(454, b"\2")
        maker.poke(0, b"\xeb\x63\x90 GRUB ")
        assert breaches == len([told for told in maker.said() if "ignores the GPT, and so does Linux" in told])


def test_nothing_is_said_to_be_missing_on_an_esp_that_firmware_cannot_read(maker: Maker) -> None:
    """A FAT32 with too few clusters is one breach: what is on it is not known."""
    maker.make(GOOD)
    maker.poke(MIB + 13, b"\x08")  # sectors of a cluster
    (found,) = maker.inspect().breaches
    assert found.cause is Cause.ESP_UNREADABLE
    assert "clusters only, and needs 65525" in found.sentence


def test_the_newest_unified_kernel_is_the_one_that_is_looked_at(maker: Maker) -> None:
    """Version 10 is newer than 9, and one that has no tries left comes last."""
    osrel = b"ID=x\nPRETTY_NAME=X\n"
    good = {".osrel": osrel, ".cmdline": b"console=ttyS0", ".linux": kernel("6.10.0")}
    old = program(sections={**good, ".linux": kernel("6.9.0")})
    names = {"/EFI/Linux/x-9.efi": old, "/EFI/Linux/x-10.efi": program(sections=good)}
    maker.make({"/EFI/BOOT/BOOTX64.EFI": BOOT, **names})
    assert maker.inspect().steps[-1] == "Linux 6.10.0"
    names["/EFI/Linux/x-11+0-3.efi"] = program(sections={**good, ".linux": kernel("6.11.0")})
    maker.make({"/EFI/BOOT/BOOTX64.EFI": BOOT, **names})
    assert maker.inspect().steps[-1] == "Linux 6.10.0"


def test_a_disk_for_bios_only_is_a_note(maker: Maker) -> None:
    """It boots, only not here."""
    maker.make({"/readme": b"x"}, table="dos")
    maker.poke(0, b"\xeb\x63\x90 GRUB ")
    found = maker.inspect()
    assert found.ok
    assert found.bios_only
    assert any("for BIOS only: GRUB is in its first sector" in check.sentence for check in found.checks)


@pytest.mark.parametrize(
    ("sector", "words"),
    [
        (1 << 50, "goes on at sector 1125899906842624, and the disk has"),
        (1, "goes on at sector 1, where the partition table is"),
        (40, "goes on at sector 40, which is empty"),
    ],
)
def test_grub_for_bios_has_to_lead_somewhere(maker: Maker, sector: int, words: str) -> None:
    """A first sector whose second part was not written: a breach, unless UEFI firmware starts the disk."""
    code = bytearray(b"\xeb\x63\x90 GRUB ".ljust(440, b"\0"))
    code[0x5A:0x64] = b"\x00\x80" + sector.to_bytes(8, "little")
    maker.make(GOOD)
    maker.poke(0, bytes(code))
    found = maker.inspect()
    assert found.ok
    assert any(words in check.sentence for check in found.checks)
    maker.make({"/readme": b"x"})
    maker.poke(0, bytes(code))
    (breach,) = maker.inspect().breaches
    assert breach.cause is Cause.BOOTLOADER_INVALID
    assert words in breach.sentence
    maker.poke(40 * 512, b"\x52\xe8")
    code[0x5C:0x64] = (40).to_bytes(8, "little")
    maker.poke(0, bytes(code))
    assert maker.said() == []


def test_what_uefi_misses_on_a_disk_for_bios_is_named(maker: Maker) -> None:
    """An ESP without its loader is no breach beside a loader for BIOS; the note says what is missing, and why."""
    maker.make({"/readme": b"x"})
    maker.poke(0, b"\xeb\x63\x90 GRUB ")
    found = maker.inspect()
    assert found.ok
    (told,) = (check for check in found.checks if check.value == "BIOS only")
    assert told.cause is Cause.BOOTLOADER_MISSING
    assert "first sector; /EFI/BOOT/BOOTX64.EFI is not on the ESP" in told.sentence
    maker.poke(MIB, bytes(MIB))
    (told,) = (check for check in maker.inspect().checks if check.value == "BIOS only")
    assert told.cause is Cause.ESP_UNREADABLE


def test_what_a_bios_starts_is_followed(maker: Maker) -> None:
    """GRUB's menu names the same kernel whichever firmware starts it, and a kernel that is missing is."""
    files = {"/boot/grub/grub.cfg": MENU.encode(), "/boot/vmlinuz": kernel("6.12.1"), "/boot/initrd": CPIO}
    maker.make({"/readme": b"x"}, files, table="dos")
    maker.poke(0, b"\xeb\x63\x90 GRUB ")
    found = maker.inspect()
    assert found.ok
    assert ["BIOS: GRUB", "/boot/grub/grub.cfg 'Debian'", "Linux 6.12.1"] == list(found.steps)
    maker.make({"/readme": b"x"}, {**files, "/boot/vmlinuz": b""}, table="dos")
    maker.poke(0, b"\xeb\x63\x90 GRUB ")
    assert [Cause.KERNEL_INVALID] == [check.cause for check in maker.inspect().breaches]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/EFI/BOOT/BOOTAA64.EFI", "there is /EFI/BOOT/BOOTAA64.EFI, for ARM"),
        ("/EFI/BOOT/bootia32.efi", "there is /EFI/BOOT/bootia32.efi, for 32 bits"),
        ("/EFI/debian/grubx64.efi", "there is /EFI/debian/grubx64.efi, for which it needs a boot entry"),
    ],
)
def test_loaders_that_are_not_started_are_named(maker: Maker, path: str, words: str) -> None:
    """Who forgot the fallback path, or took another architecture's image, is told so."""
    maker.make({path: BOOT})
    (said,) = maker.said()
    assert words in said


def test_a_root_that_fits_two_partitions_is_a_note(maker: Maker) -> None:
    """By a label that is there twice either may be mounted."""
    entry = ENTRY.replace(f"UUID={ROOT}".encode(), b"PARTLABEL=twin")
    maker.make({**GOOD, "/loader/entries/debian.conf": entry})
    for number in ("1", "2"):
        maker._toolbox.run("sfdisk", "-q", "--part-label", maker.path, number, "twin")
    found = maker.inspect()
    assert found.ok
    assert any("fits 2 partitions" in check.sentence for check in found.checks)


def test_who_listens_to_a_cloud(maker: Maker) -> None:
    """cloud-init is known by its files, Ignition by the kernel's command line."""
    entry = ENTRY.replace(b"options ", b"options ignition.firstboot ignition.platform.id=qemu ")
    maker.make({"/EFI/BOOT/BOOTX64.EFI": BOOT, "/loader/entries/a.conf": entry, "/vmlinuz": kernel(), "/initrd": CPIO})
    assert maker.inspect().listens == {"ignition"}
    maker.make({"/EFI/BOOT/BOOTX64.EFI": BOOT}, {"/usr/bin/cloud-init": b"x"})
    assert maker.inspect().listens == {"cloud-init"}


def test_a_kernel_by_hand_needs_no_boot_loader(tmp_path: Path, toolbox: Toolbox) -> None:
    """A root file system without a table is refused as a disk, and taken where somebody starts a kernel on it."""
    bare = tmp_path / "rootfs.ext4"
    with bare.open("wb") as file:
        file.truncate(16 * MIB)
    toolbox.run("mkfs.ext4", "-q", bare)
    with pytest.raises(InputError, match="without a partition table") as caught:
        inspect(bare, None, toolbox)
    assert "--kernel" in (caught.value.hint or "")
    assert inspect(bare, None, toolbox, direct=True).ok
