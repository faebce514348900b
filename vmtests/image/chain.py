"""Any image's way to boot, followed as firmware and boot loader would: what is there, and what would stop it.

A breach is what would not boot; whatever is not understood, or only unusual, is a note. Firmware: EDK2's
UefiBootManagerLib and PartitionDxe, which start the fallback program of any FAT file system on the disk.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.host.architecture import GUEST
from vmtests.host.tools import Toolbox
from vmtests.image import eltorito, fat, gpt, grubmenu, layout, linux, menus, pe
from vmtests.image.check import Check, Word, breach, clean, note, passed
from vmtests.image.files import Files, FilesError
from vmtests.image.layout import Volume
from vmtests.image.menus import names
from vmtests.image.source import Source
from vmtests.image.trail import SUBJECT, Trail

_ARCHITECTURES = {
    "IA32": "32 bits", "AA64": "ARM", "ARM": "32-bit ARM", "RISCV64": "RISC-V", "LOONGARCH64": "LoongArch",
    "IA64": "Itanium",
}  # fmt: skip
"""By their names in UEFI 2.10, table 3.2."""
_EL_TORITO = "a boot image"
_LISTENERS = {
    "cloud-init": ("/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"),
    "qemu-guest-agent": ("/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"),
}

_BOARDS = {
    **dict.fromkeys(("/bootcode.bin", "/start4.elf", "/start.elf"), "which a Raspberry Pi starts"),
    **dict.fromkeys(("/boot.scr", "/boot.scr.uimg", "/u-boot.img", "/uEnv.txt", "/MLO"), "which is U-Boot's"),
    "/BOOT.BIN": "which a Zynq starts",
}

Follow = Callable[[Trail, Volume | None, str], Iterator[Check]]
"""Goes on from a boot loader, by its ESP (none under a BIOS) and its path there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """How a boot loader is told from others, and what follows it; shim goes on to another program."""

    follow: Follow | None
    section: str = ""
    """Of its program; no other program has it."""
    component: bytes = b""
    """What begins its line in the section .sbat."""
    says: bytes = b""
    """Words somewhere in its program, where nothing else tells it."""


_LOADERS = {
    "systemd-boot": _Loader(section=".sdmagic", says=b"LoaderInfo: systemd-boot", follow=menus.systemd_boot),
    "shim": _Loader(component=b"\nshim,", follow=None),
    "GRUB": _Loader(section="mods", says=b"GRUB", follow=grubmenu.follow),
    "Limine": _Loader(says=b"Limine", follow=menus.limine),
    "rEFInd": _Loader(says="rEFInd".encode("utf-16-le"), follow=menus.refind),
    "SYSLINUX": _Loader(says=b"SYSLINUX", follow=menus.syslinux),
}
"""The boot loaders that are followed; another is another row, and a function in `menus` that finds its kernel."""


def _grub_ends(disk: Source) -> str:
    """Say why GRUB 2 does not get beyond the first sector; nothing where it does, or where that is not known.

    grub-core/boot/i386/pc/boot.S: where its core image is (of a disc, elsewhere), and where that is loaded to.
    """
    code = disk.read(0, 512)
    sector, sectors = int.from_bytes(code[0x5C:0x64], "little"), disk.size // 512
    if code[0x5A:0x5C] != b"\x00\x80" or not sector:
        return ""
    if sector >= sectors:
        return f"goes on at sector {sector}, and the disk has {sectors}"
    core = disk.read(sector * 512, 512)
    if core.startswith(b"EFI PART"):
        return f"goes on at sector {sector}, where the partition table is"
    return "" if core.strip(b"\0") else f"goes on at sector {sector}, which is empty"


class Chain:
    """Follows one disk; `trail` is what was found on the way."""

    def __init__(self, disk: Source, table: gpt.Table, volumes: list[Volume], toolbox: Toolbox) -> None:
        entry_size = 0 if table.header is None else table.header.entry_size
        # Linux makes no partition that ends beyond the disk (block/partitions/efi.c, is_pte_valid()).
        beyond = {entry.number for entry in table.entries if table.start(entry) + table.length(entry) > disk.size}
        seen = [volume for volume in volumes if volume.number not in beyond]
        self.trail = Trail(disk, seen, toolbox, entry_size=entry_size)
        self._disk = disk
        self._table = table
        self._volumes = volumes
        self._gone_through: list[str] = []  # paths
        self.bios_only = False

    def check(self) -> Iterator[Check]:
        """Yield what firmware, loader and kernel would meet, up to what stops them."""
        bios = self._bios()
        faults = [fault for item in self._volumes if item.readable == "vfat" for fault in self._readable(item)]
        yield from faults
        yield from self._follow(bios, unread=bool(faults))
        # Last: whether it stops anything depends on who else starts the disk.
        if bios == "GRUB" and self._table.sector_size == 512 and (reason := _grub_ends(self._disk)):
            text, hint = f"GRUB, as a BIOS starts it, {reason}", "grub-install writes both of its parts"
            if self.bios_only:
                yield breach(SUBJECT, "boot sector", "leads nowhere", text, hint, cause=Cause.BOOTLOADER_INVALID)
            else:
                yield note(SUBJECT, "boot sector", "leads nowhere", f"{text}; UEFI starts another")

    def _follow(self, bios: str, *, unread: bool) -> Iterator[Check]:
        """Follow firmware; of an ESP that is `unread` it is not said what is not on it."""
        if self._table.header is not None and not gpt.trusted_by_firmware(self._disk):
            text = "the protective MBR does not begin in sector 1: firmware (EDK2) ignores the GPT"
            found = list(self._by_bios(bios)) if bios else []
            # Linux does as well, without `gpt` on its command line (block/partitions/efi.c, pmbr_part_valid()).
            lost = self.trail.root is not None and "gpt" not in self.trail.options.split()
            if bios and not lost:
                yield note(SUBJECT, Word.PROTECTIVE_MBR, "ignored", f"{text}; it boots with BIOS only")
            else:
                text, hint = f"{text}{', and so does Linux' if lost else ''}", "sfdisk --label gpt writes it anew"
                yield breach(SUBJECT, Word.PROTECTIVE_MBR, "ignored", text, hint, cause=Cause.GPT_DESTROYED)
            yield from found
            return
        fallback = GUEST.fallback
        unseen = gpt.unseen_by_firmware(self._table)
        having = [volume for volume in self._volumes if volume.type != layout.EMPTY and self._has(volume, fallback)]
        starting = sorted(
            (volume for volume in having if volume.number not in unseen), key=lambda volume: volume.type != layout.ESP
        )
        if having and not starting and not bios:
            text = f"firmware (EDK2) ignores {having[0].where}, which has {fallback}: {unseen[having[0].number]}"
            yield breach(SUBJECT, "ESP", "ignored", text, "sfdisk mends the table", cause=Cause.ESP_UNREADABLE)
            return
        if not starting:
            if bios:
                yield self._nothing_else(bios, unread=unread)
                yield from self._by_bios(bios)
            elif not unread:
                yield self._nothing()
            return
        esp = starting[0]
        if esp.type != layout.ESP and esp.number:
            text = f"{fallback} is on {esp.where}, which is of type {esp.type}: OVMF starts it, other firmware may not"
            yield note(SUBJECT, "ESP", esp.type, text)
        yield from self._program(esp, fallback)

    def listens(self) -> frozenset[str]:
        """Return who on the disk listens to what a cloud hands to a guest, where that can be read."""
        found = set()
        line = self.trail.options.split()
        if any(word.startswith(("ignition.", "flatcar.first_boot", "flatcar.oem")) for word in line):
            found.add("ignition")
        for volume in self._volumes:
            if volume.readable.startswith("ext"):
                with contextlib.suppress(FilesError):
                    files = self.trail.open(volume)
                    for name, paths in _LISTENERS.items():
                        if files is not None and any(files.find(path) is not None for path in paths):
                            found.add(name)
        return frozenset(found)

    def _by_bios(self, name: str) -> Iterator[Check]:
        """Follow what a BIOS starts, as far as that is read here."""
        self.bios_only = True
        self.trail.steps.append(f"BIOS: {name}")
        if name == "GRUB":
            yield from grubmenu.follow(self.trail, None, "")
        elif name.endswith("LINUX"):
            yield from menus.syslinux(self.trail, None, "")

    def _bios(self) -> str:
        if any(image.platform == eltorito.BIOS for image in eltorito.boot_images(self._disk)):
            return _EL_TORITO
        code = self._disk.read(0, 440)
        if not code.strip(b"\0"):
            return ""
        for word, name in ((b"GRUB", "GRUB"), (b"SYSLINUX", "SYSLINUX"), (b"isolinux", "ISOLINUX")):
            if word in code:
                return name
        return "SYSLINUX" if b"Missing operating system" in code or b"Boot error" in code else "a boot loader"

    def _nothing_else(self, bios: str, *, unread: bool) -> Check:
        """Say that a disk is for BIOS only; what an ESP lacks is the cause where UEFI firmware is to start it."""
        place = "boot catalog" if bios == _EL_TORITO else "first sector"
        text, cause = f"it is for BIOS only: {bios} is in its {place}", Cause.ESP_UNREADABLE
        if not unread:
            missing = self._nothing()
            cause = missing.cause or cause
            if any(volume.type == layout.ESP for volume in self._volumes):
                return note(SUBJECT, "boot loader", "BIOS only", f"{text}; {missing.sentence}", cause=cause)
        text = f"{text}, and nothing that UEFI firmware starts"
        return note(SUBJECT, "boot loader", "BIOS only", text, cause=cause)

    def _nothing(self) -> Check:
        esps = [volume for volume in self._volumes if volume.type == layout.ESP]
        if not esps and any(item.system is not None and item.system.type == "iso9660" for item in self._volumes[:1]):
            text = "it is a CD-ROM image from which nothing boots: its boot catalog (El Torito) is empty, or not there"
            hint = "xorriso's -b and -e, or grub-mkrescue, make one"
            return breach(SUBJECT, "boot catalog", "empty", text, hint, cause=Cause.BOOTLOADER_MISSING)
        if not esps:
            text = "there is no ESP and no boot loader for BIOS: nothing on the disk is started"
            if board := self._board():
                text = f"it is for another machine: {board}; there is no ESP and no boot loader for BIOS"
                hint = f"give an image for {GUEST.shown} with UEFI or a BIOS, or start its kernel: --kernel FILE"
                return breach(SUBJECT, "ESP", "missing", text, hint, cause=Cause.ESP_MISSING)
            return breach(SUBJECT, "ESP", "missing", text, "bootctl install, or grub-install", cause=Cause.ESP_MISSING)
        if all(volume.readable != "vfat" for volume in esps):
            what = "nothing that is known" if esps[0].system is None else esps[0].system.type
            text = f"the ESP ({esps[0].where}) has no FAT that firmware could read: it holds {what}"
            return breach(SUBJECT, "ESP", "no FAT", text, "mkfs.vfat makes one", cause=Cause.ESP_UNREADABLE)
        where = f"the ESP ({esps[0].where})"
        text = f"{GUEST.fallback} is not on {where}, and firmware without variables starts nothing else"
        if others := self._other_loaders(esps[0]):
            text = f"{text}: there is {others}"
        hint = "bootctl install, or grub-install --removable, puts one there"
        return breach(SUBJECT, "boot loader", "missing", text, hint, cause=Cause.BOOTLOADER_MISSING)

    def _board(self) -> str:
        """Say which board's firmware starts the disk, by the files that it looks for on a FAT; nothing where none."""
        for volume in self._volumes:
            for path, board in _BOARDS.items():
                for place in (path, f"/boot{path}") if volume.readable.startswith("ext") else (path,):
                    if volume.readable and self.trail.has(volume, place):
                        return f"{volume.where} has {place}, {board}"
        return ""

    def _other_loaders(self, esp: Volume) -> str:
        """Name the first programs for firmware that are on the ESP, and why it does not start them."""
        with contextlib.suppress(FilesError):
            programs = [path for path in names(self.trail.open(esp)) if path.lower().endswith(".efi")]
            for path in sorted(programs, key=lambda path: not path.upper().startswith("/EFI/BOOT/BOOT")):
                foreign = _ARCHITECTURES.get(path.upper().removeprefix("/EFI/BOOT/BOOT").removesuffix(".EFI"))
                return (
                    f"{clean(path)}, for {foreign}" if foreign else f"{clean(path)}, for which it needs a boot entry"
                )
        return ""

    def _readable(self, volume: Volume) -> Iterator[Check]:
        """Whether EDK2 mounts the FAT; it counts clusters, for one thing. Sectors of any size are read."""
        sector = fat.parse(volume.content.read(0, 512))
        if sector is not None and sector.unread and volume.type == layout.ESP:
            text = f"the FAT on {volume.where} is not read by firmware (EDK2): {sector.unread}"
            hint = "mkfs.vfat makes one that is; with few clusters, mkfs.vfat -s1 or a larger partition"
            yield breach(SUBJECT, "FAT type", sector.type, text, hint, cause=Cause.ESP_UNREADABLE)

    def _has(self, volume: Volume, path: str) -> bool:
        """Whether firmware sees a file: it reads FAT only."""
        return volume.readable == "vfat" and self.trail.has(volume, path)

    def _program(self, esp: Volume, path: str) -> Iterator[Check]:
        files = self.trail.open(esp)
        assert files is not None
        real = files.find(path)
        if real is None:
            text = f"{path} is not on {esp.where}"
            yield breach(SUBJECT, "boot loader", "missing", text, cause=Cause.BOOTLOADER_MISSING)
            return
        head = files.read(real, pe.HEAD)
        program = pe.parse(head)
        reason = pe.fault(program)
        if not isinstance(program, str) and not program.sections:
            reason = reason or "it has no sections, so nothing to run"
        if reason is not None or isinstance(program, str):
            text = f"boot loader {real} is no EFI program for {GUEST.shown}: {reason}"
            yield breach(SUBJECT, "boot loader", real, text, cause=Cause.BOOTLOADER_INVALID)
            return
        self.trail.files.append(real)
        if program.is_uki:
            yield from linux.unified(self.trail, esp, real, program)
            return
        if not files.pick(real, ((program.end - 1, 1),))[0]:
            text = f"boot loader {real} was cut: by its headers it has {program.end} bytes at least"
            yield breach(SUBJECT, "boot loader", "cut", text, "copy it again", cause=Cause.BOOTLOADER_INVALID)
            return
        kind = self._kind(files, real, program, head)
        self.trail.steps.append(f"{real} ({kind})")
        yield passed(SUBJECT, "boot loader", f"{real} ({kind})")
        if kind == "Linux":
            yield from linux.kernel_alone(self.trail, files, real)
        elif kind in _LOADERS and real not in self._gone_through:
            self._gone_through.append(real)
            follow = _LOADERS[kind].follow
            yield from self._shim(esp, real) if follow is None else follow(self.trail, esp, real)
        else:
            yield note(SUBJECT, "boot loader", real, f"what {real} starts is not known here")

    def _kind(self, files: Files, path: str, program: pe.Program, head: bytes) -> str:
        component = b""
        if (sbat := program.sections.get(".sbat")) is not None:
            # Its second line names the component (SBAT.md of shim).
            component = files.pick(path, ((sbat.offset, min(sbat.size, 4096)),))[0]
        for name, known in _LOADERS.items():
            if known.section and known.section in program.sections:
                return name
            if known.component and known.component in component:
                return name
        if pe.parse_kernel(head) is not None:
            return "Linux"
        whole = files.read(path, 8 << 20)
        return next((name for name, known in _LOADERS.items() if known.says and known.says in whole), "unknown")

    def _shim(self, esp: Volume, path: str) -> Iterator[Check]:
        second = menus.shim_second(self.trail, esp, path)
        if self.trail.has(esp, second):
            yield from self._program(esp, second)
            return
        text = f"shim finds no {second} to start"
        yield breach(SUBJECT, "boot loader", "missing", text, cause=Cause.BOOTLOADER_MISSING)
