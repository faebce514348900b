"""Any image's way to boot, followed as firmware and boot loader would: what is there, and what would stop it.

A breach is what would not boot; whatever is not understood, or only unusual, is a note. Firmware: EDK2's
UefiBootManagerLib and PartitionDxe, which start the fallback program of any FAT file system on the disk.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

from vmtests.causes import Cause
from vmtests.host.architecture import GUEST
from vmtests.host.tools import Toolbox
from vmtests.image import eltorito, fat, gpt, grub, initramfs, layout, loader, pe
from vmtests.image.check import Check, breach, clean, note, passed
from vmtests.image.cmdline import values
from vmtests.image.files import Files, FilesError
from vmtests.image.filesystem import CONTAINERS
from vmtests.image.layout import Volume
from vmtests.image.source import Source

_TEXT = 1 << 18  # bytes of a configuration that are read
_SUBJECT = "boot"
_LINUX = "/EFI/Linux"
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
_GRUB = f"grub{GUEST.efi}.efi"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """How a boot loader is told from others, and the method that goes on from it, by its ESP and its path there."""

    follow: Callable[["Chain", Volume, str], Iterator[Check]]
    section: str = ""
    """Of its program; no other program has it."""
    component: bytes = b""
    """What begins its line in the section .sbat."""
    says: bytes = b""
    """Words somewhere in its program, where nothing else tells it."""


class Chain:
    """Follows the way in which one disk boots.

    `steps` say to people what was found, in order; `files` are the paths that were followed; `options` is the kernel's
    command line.
    """

    def __init__(self, disk: Source, table: gpt.Table, volumes: list[Volume], toolbox: Toolbox) -> None:
        self._disk = disk
        self._table = table
        self._volumes = volumes
        self._toolbox = toolbox
        self._opened: dict[int, Files | None] = {}
        self.steps: list[str] = []
        self.files: list[str] = []
        self.options = ""
        self._gone_through: list[str] = []
        self.bios_only = False

    def check(self) -> Iterator[Check]:
        """Yield what firmware, loader and kernel would meet, up to what stops them."""
        bios = self._bios()
        for volume in self._volumes:
            if volume.system is not None and volume.system.type == "vfat":
                yield from self._readable(volume)
        if self._table.header is not None and not gpt.trusted_by_firmware(self._disk):
            text = "firmware (EDK2) ignores the GPT: its protective MBR does not begin in sector 1"
            if bios:
                yield note(_SUBJECT, "protective MBR", "ignored", f"{text}; it boots with BIOS only")
                yield from self._by_bios(bios)
            else:
                hint = "sfdisk --label gpt writes it anew"
                yield breach(_SUBJECT, "protective MBR", "ignored", text, hint, cause=Cause.GPT_DESTROYED)
            return
        fallback = GUEST.fallback
        starting = [volume for volume in self._volumes if self._has(volume, fallback)]
        starting.sort(key=lambda volume: volume.type != layout.ESP)
        if not starting:
            yield self._nothing(bios)
            if bios:
                yield from self._by_bios(bios)
            return
        esp = starting[0]
        if esp.type != layout.ESP and esp.number:
            text = f"{fallback} is on {esp.where}, which is of type {esp.type}: OVMF starts it, other firmware may not"
            yield note(_SUBJECT, "ESP", esp.type, text)
        yield from self._program(esp, fallback)

    def listens(self) -> frozenset[str]:
        """Return who on the disk listens to what a cloud hands to a guest, where that can be read."""
        found = set()
        if any(word.startswith(("ignition.", "flatcar.first_boot", "flatcar.oem")) for word in self.options.split()):
            found.add("ignition")
        for volume in self._volumes:
            if volume.system is not None and volume.system.type.startswith("ext"):
                with contextlib.suppress(FilesError):
                    files = self._files(volume)
                    for name, paths in _LISTENERS.items():
                        if files is not None and any(files.find(path) is not None for path in paths):
                            found.add(name)
        return frozenset(found)

    def _by_bios(self, name: str) -> Iterator[Check]:
        """Follow what a BIOS starts, as far as that is read here."""
        self.bios_only = True
        self.steps.append(f"BIOS: {name}")
        if name == "GRUB":
            yield from self._grub(None, "")

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

    def _nothing(self, bios: str) -> Check:
        if bios:
            place = "boot catalog" if bios == _EL_TORITO else "first sector"
            text = f"it is for BIOS only: {bios} is in its {place}, and nothing that UEFI firmware starts"
            return note(_SUBJECT, "boot loader", "BIOS only", text, cause=Cause.BOOTLOADER_MISSING)
        esps = [volume for volume in self._volumes if volume.type == layout.ESP]
        if self._volumes and self._volumes[0].system is not None and self._volumes[0].system.type == "iso9660":
            text = "it is a CD-ROM image from which nothing boots: its boot catalog (El Torito) is empty, or not there"
            hint = "xorriso's -b and -e, or grub-mkrescue, make one"
            return breach(_SUBJECT, "boot catalog", "empty", text, hint, cause=Cause.BOOTLOADER_MISSING)
        if not esps:
            text = "there is no ESP and no boot loader for BIOS: nothing on the disk is started"
            return breach(
                _SUBJECT, "ESP", "missing", text, "bootctl install, or grub-install", cause=Cause.ESP_MISSING
            )
        if all(volume.system is None or volume.system.type != "vfat" for volume in esps):
            what = "nothing that is known" if esps[0].system is None else esps[0].system.type
            text = f"the ESP ({esps[0].where}) has no FAT that firmware could read: it holds {what}"
            return breach(_SUBJECT, "ESP", "no FAT", text, "mkfs.vfat makes one", cause=Cause.ESP_UNREADABLE)
        where = f"the ESP ({esps[0].where})"
        text = f"{GUEST.fallback} is not on {where}, and firmware without variables starts nothing else"
        if others := self._other_loaders(esps[0]):
            text = f"{text}: there is {others}"
        hint = "bootctl install, or grub-install --removable, puts one there"
        return breach(_SUBJECT, "boot loader", "missing", text, hint, cause=Cause.BOOTLOADER_MISSING)

    def _other_loaders(self, esp: Volume) -> str:
        """Name the first programs for firmware that are on the ESP, and why it does not start them."""
        with contextlib.suppress(FilesError):
            names = [path for path in _names(self._files(esp)) if path.lower().endswith(".efi")]
            for path in sorted(names, key=lambda path: not path.upper().startswith("/EFI/BOOT/BOOT")):
                foreign = _ARCHITECTURES.get(path.upper().removeprefix("/EFI/BOOT/BOOT").removesuffix(".EFI"))
                return (
                    f"{clean(path)}, for {foreign}" if foreign else f"{clean(path)}, for which it needs a boot entry"
                )
        return ""

    def _readable(self, volume: Volume) -> Iterator[Check]:
        """Whether EDK2 takes the FAT as what it was made; it counts clusters. Sectors of any size are read."""
        sector = fat.parse(volume.content.read(0, 512))
        if sector is not None and sector.fat32_layout and sector.type != "FAT32" and volume.type == layout.ESP:
            text = f"FAT32 on {volume.where} has {sector.clusters} clusters only, so OVMF does not read it"
            hint = "mkfs.vfat -s1, smaller sectors, or a larger partition: FAT32 has 65525 clusters at least"
            yield breach(_SUBJECT, "FAT type", sector.type, text, hint, cause=Cause.ESP_UNREADABLE)

    def _files(self, volume: Volume) -> Files | None:
        if volume.number not in self._opened:
            self._opened[volume.number] = layout.files(volume, self._disk, self._toolbox)
        return self._opened[volume.number]

    def _has(self, volume: Volume, path: str) -> bool:
        if volume.system is None or volume.system.type != "vfat" or (files := self._files(volume)) is None:
            return False
        try:
            return files.find(path) is not None
        except FilesError:
            return False

    def _program(self, esp: Volume, path: str) -> Iterator[Check]:
        files = self._files(esp)
        assert files is not None
        real = files.find(path)
        if real is None:
            text = f"{path} is not on {esp.where}"
            yield breach(_SUBJECT, "boot loader", "missing", text, cause=Cause.BOOTLOADER_MISSING)
            return
        head = files.read(real, pe.HEAD)
        program = pe.parse(head)
        if (reason := pe.fault(program)) is not None or isinstance(program, str):
            text = f"boot loader {real} is no EFI program for {GUEST.shown}: {reason}"
            yield breach(_SUBJECT, "boot loader", real, text, cause=Cause.BOOTLOADER_INVALID)
            return
        self.files.append(real)
        if program.is_uki:
            yield from self._unified(esp, real, program)
            return
        kind = self._kind(files, real, program, head)
        self.steps.append(f"{real} ({kind})")
        yield passed(_SUBJECT, "boot loader", f"{real} ({kind})")
        if kind == "Linux":
            yield from self._release(pe.parse_kernel(head), real)
        elif kind in self._LOADERS and kind not in self._gone_through:
            self._gone_through.append(kind)
            yield from self._LOADERS[kind].follow(self, esp, real)
        else:
            yield note(_SUBJECT, "boot loader", real, f"what {real} starts is not known here")

    def _kind(self, files: Files, path: str, program: pe.Program, head: bytes) -> str:
        component = b""
        if (sbat := program.sections.get(".sbat")) is not None:
            # Its second line names the component (SBAT.md of shim).
            component = files.pick(path, ((sbat.offset, min(sbat.size, 4096)),))[0]
        for name, known in self._LOADERS.items():
            if known.section and known.section in program.sections:
                return name
            if known.component and known.component in component:
                return name
        if pe.parse_kernel(head) is not None:
            return "Linux"
        whole = files.read(path, 8 << 20)
        return next((name for name, known in self._LOADERS.items() if known.says and known.says in whole), "unknown")

    def _shim(self, esp: Volume, path: str) -> Iterator[Check]:
        directory = path.rpartition("/")[0]
        if self._has(esp, f"{directory}/{_GRUB}"):
            yield from self._program(esp, f"{directory}/{_GRUB}")
            return
        files = self._files(esp)
        assert files is not None
        if self._has(esp, f"{directory}/fb{GUEST.efi}.efi"):
            # shim's fallback makes an entry of every \EFI\*\BOOT{architecture}.CSV and starts the first.
            for name in sorted(path for path in _names(files) if path.lower().endswith(f"/boot{GUEST.efi}.csv")):
                place = name.rpartition("/")[0]
                if self._has(esp, f"{place}/{_GRUB}"):
                    yield from self._program(esp, f"{place}/{_GRUB}")
                    return
        text = f"shim finds no {directory}/{_GRUB} to start"
        yield breach(_SUBJECT, "boot loader", "missing", text, cause=Cause.BOOTLOADER_MISSING)

    def _systemd_boot(self, esp: Volume, _: str) -> Iterator[Check]:
        sources = [esp, *(volume for volume in self._volumes if volume.type == layout.XBOOTLDR)]
        found: list[tuple[loader.Entry, Volume, Files]] = []
        lost: list[str] = []
        for volume in sources:
            if (files := self._files(volume)) is not None:
                found += self._entries(volume, files, lost)
        files = self._files(esp)
        assert files is not None
        config = _text(files, "/loader/loader.conf")
        setting = {words[0]: words[1] for line in config.splitlines() if len(words := line.split(None, 1)) == 2}
        entry = loader.chosen([item for item, _, _ in found], setting.get("default", "").strip())
        if entry is None:
            text = "; ".join(lost[:3]) or "no entry in /loader/entries and no unified kernel image in /EFI/Linux"
            cause = Cause.KERNEL_MISSING if lost else Cause.ENTRY_MISSING
            yield breach(_SUBJECT, "entry", "missing", f"systemd-boot has nothing to start: {text}", cause=cause)
            return
        for text in lost:
            yield note(_SUBJECT, "entry", "skipped", f"systemd-boot leaves an entry out: {text}")
        volume, files = next((volume, files) for item, volume, files in found if item is entry)
        if entry.left == 0:
            yield note(_SUBJECT, "entry", entry.path, f"{entry.path} has no tries left, and nothing else is there")
        self.files.append(entry.path)
        yield passed(_SUBJECT, "entry", entry.path)
        if entry.unified is not None:
            program = pe.parse(files.read(files.find(entry.unified) or "", pe.HEAD))
            if isinstance(program, str) or (reason := pe.fault(program)) is not None:
                reason = program if isinstance(program, str) else reason
                text = f"{entry.unified}, which systemd-boot starts, is no EFI program for {GUEST.shown}: {reason}"
                yield breach(_SUBJECT, "kernel", entry.unified, text, cause=Cause.KERNEL_INVALID)
            elif program.is_uki:
                yield from self._unified(volume, entry.unified, program, entry.options)
            return
        self.steps.append(entry.path)
        yield from self._linux(files, volume, entry.kernel or "", entry.initrds, entry.options, entry.path)

    def _entries(self, volume: Volume, files: Files, lost: list[str]) -> Iterator[tuple[loader.Entry, Volume, Files]]:
        try:
            for path in files.below("/loader/entries", ".conf"):
                name = path.rpartition("/")[2].lower()
                entry = loader.parse(_text(files, path), path)
                program = entry.kernel or entry.unified
                if name.startswith(("auto-", ".")) or entry.architecture.lower() not in ("", GUEST.efi):
                    continue
                if program is None:
                    lost.append(f"{path} names no kernel")
                elif files.find(program) is None:
                    lost.append(f"kernel {clean(program)}, named by {path}, is not on {volume.where}")
                else:
                    yield entry, volume, files
            for path in files.below(_LINUX, ".efi"):
                name, left = loader.counted(path.rpartition("/")[2])
                head = pe.parse(files.read(path, pe.HEAD))
                section = None if isinstance(head, str) else head.sections.get(".osrel")
                if name.lower().startswith(("auto-", ".")) or section is None:
                    lost.append(f"{path} is no unified kernel image with an .osrel section")
                    continue
                osrel = files.pick(path, ((section.offset, min(section.size, 1 << 16)),))[0]
                told = _osrel(osrel.decode("utf-8", errors="replace"))
                version = (told.get(key, "") for key in ("IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"))
                entry = loader.Entry(
                    id=name, path=path, unified=path, left=left,
                    version=next((text for text in version if text), ""),
                    sort_key=told.get("IMAGE_ID") or told.get("ID", ""),
                )  # fmt: skip
                yield entry, volume, files
        except FilesError as error:
            lost.append(f"the files of {volume.where} cannot be read: {error}")

    def _unified(self, volume: Volume, path: str, program: pe.Program, options: str = "") -> Iterator[Check]:
        files = self._files(volume)
        assert files is not None
        self.steps.append(f"{path} (unified kernel image)")
        self.files.append(path)
        kernel, line = program.sections[".linux"], program.sections.get(".cmdline")
        ranges = [(kernel.offset, min(kernel.size, pe.HEAD)), (line.offset, min(line.size, _TEXT)) if line else (0, 0)]
        head, told = files.pick(path, ranges)
        release = yield from self._release(pe.parse_kernel(head), f"in {path}")
        text = told.rstrip(b"\0").decode("utf-8", errors="replace").replace("\0", " ").strip()
        if (initrd := program.sections.get(".initrd")) is not None:
            yield from self._initrd(files, path, initrd.offset, initrd.size, release, f"in {path}")
        yield from self._options(options or text, path, has_initrd=initrd is not None)

    def _linux(
        self, files: Files, volume: Volume, kernel: str, initrds: tuple[str, ...], options: str, origin: str
    ) -> Iterator[Check]:
        """Check kernel, initrds and command line of an entry whose paths are on `volume`."""
        real = files.find(kernel)
        if real is None:
            text = f"kernel {clean(kernel)}, named by {origin}, is not on {volume.where}"
            yield breach(_SUBJECT, "kernel", "missing", text, cause=Cause.KERNEL_MISSING)
            return
        self.files.append(real)
        release = yield from self._release(pe.parse_kernel(files.read(real, pe.HEAD)), real)
        for name in initrds:
            if (place := files.find(name)) is None:
                text = f"initrd {clean(name)}, named by {origin}, is not on {volume.where}"
                yield breach(_SUBJECT, "initrd", "missing", text, cause=Cause.INITRD_MISSING)
            else:
                self.files.append(place)
                yield from self._initrd(files, place, 0, initramfs.LIMIT, release, place)
        yield from self._options(options, origin, has_initrd=bool(initrds))

    def _release(self, kernel: pe.Kernel | None, path: str) -> Generator[Check, None, str | None]:
        if kernel is None:
            text = f"kernel {path} is no Linux for x86: it has no 'HdrS' at byte 0x202"
            yield breach(_SUBJECT, "kernel release", "none", text, cause=Cause.KERNEL_INVALID)
            return None
        self.steps.append(f"Linux {kernel.release}")
        yield passed(_SUBJECT, "kernel release", kernel.release)
        return kernel.release

    def _initrd(
        self, files: Files, path: str, offset: int, size: int, release: str | None, shown: str
    ) -> Iterator[Check]:
        (head,) = files.pick(path, ((offset, min(size, 16)),))
        if pe.initrd_format(head) is None:
            begin = head[:6].hex() or "nothing"
            text = f"initrd {shown} is in no format that Linux unpacks: it begins with {begin}"
            yield breach(_SUBJECT, "initrd", begin, text, cause=Cause.INITRD_INVALID)
            return
        yield passed(_SUBJECT, "initrd", shown)
        yield from initramfs.check_release(files.chunks(path, offset, size), shown, release, self._toolbox)

    def _grub(self, esp: Volume | None, _: str) -> Iterator[Check]:
        order = [volume for volume in self._volumes if volume is not esp]
        small = place = ""
        if esp is not None:
            order.append(esp)
            place = next((path for path in _names(self._files(esp)) if path.lower().endswith("/grub.cfg")), "")
            small = _text(self._files(esp), place)
            if "menuentry" in small:
                yield from self._menu(esp, small, place)
                return
        wanted = grub.device(small)
        for volume in order:
            if (files := self._files(volume)) is None:
                continue
            for place in grub.PLACES:
                try:
                    if files.find(place) is None or "menuentry" not in (text := _text(files, place)):
                        continue
                except FilesError:
                    break
                yield from self._menu(volume, text, place)
                return
        if wanted and not self._unseen() and not any(wanted == v.system.uuid for v in self._volumes if v.system):
            text = f"GRUB looks for the file system {clean(wanted)}, which is not on the disk"
            yield breach(_SUBJECT, "GRUB", wanted, text, cause=Cause.BOOTLOADER_ERROR)
            return
        yield note(_SUBJECT, "GRUB", "not followed", "no grub.cfg with a menu was found where it can be read here")

    def _menu(self, volume: Volume, text: str, place: str) -> Iterator[Check]:
        entry = grub.parse(text)
        if entry is None or not entry.kernel or "$" in entry.kernel:
            yield note(
                _SUBJECT, "GRUB", "not followed", f"{place} on {volume.where} has scripts that are not followed"
            )
            return
        self.steps.append(f"{place} {entry.title!r}")
        self.files.append(place)
        yield passed(_SUBJECT, "entry", f"{place} {entry.title!r}")
        known = [item for item in self._volumes if item.system and item.system.uuid == entry.device]
        target = known[0] if known else volume
        if (there := self._files(target)) is None:
            yield note(_SUBJECT, "GRUB", "not followed", f"the kernel is on {target.where}, which is not read here")
            return
        yield from self._linux(there, target, entry.kernel, entry.initrds, entry.options, place)

    def _unseen(self) -> bool:
        return any(volume.system is not None and volume.system.type in CONTAINERS for volume in self._volumes)

    def _options(self, options: str, origin: str, *, has_initrd: bool) -> Iterator[Check]:
        self.options = options
        consoles = [value.split(",")[0] for value in values(options, "console")]
        if not any(console.startswith(GUEST.console.rstrip("0")) for console in consoles):
            missing = f"has no console={GUEST.console}: the boot cannot be followed on the serial line"
            text = f"the command line of {origin} {missing}"
            yield note(_SUBJECT, "console", " ".join(consoles) or "none", text, cause=Cause.SCREEN_ONLY)
        else:
            yield passed(_SUBJECT, "console", " ".join(consoles))
        roots = values(options, "root")
        if not roots:
            return
        root = roots[-1]
        yield passed(_SUBJECT, "root", root)
        if (wrong := self._absent(root)) and not self._unseen():
            text = f"root={clean(root)} of {origin} leads nowhere: {wrong}"
            yield breach(_SUBJECT, "root device", root, text, cause=Cause.PARTITION_MISSING)
        elif (count := self._count(root)) > 1:
            text = (
                f"root={clean(root)} of {origin} fits {count} partitions of the disk: which one is mounted is chance"
            )
            yield note(_SUBJECT, "root device", root, text)
        elif not has_initrd and root.partition("=")[0] in ("UUID", "LABEL"):
            text = (
                f"root={clean(root)} of {origin} needs an initrd, and there is none: the kernel knows PARTUUID= only"
            )
            yield breach(_SUBJECT, "initrd", "missing", text, cause=Cause.INITRD_MISSING)

    def _named(self, root: str) -> tuple[str, list[str] | None]:
        """Return what `root=` names, and all that the disk has of its kind; None where that cannot be told."""
        key, _, value = root.strip('"').partition("=")
        links = {"/dev/disk/by-uuid/": "UUID", "/dev/disk/by-partuuid/": "PARTUUID", "/dev/disk/by-label/": "LABEL",
                 "/dev/disk/by-partlabel/": "PARTLABEL"}  # fmt: skip
        for link, name in links.items():
            if root.startswith(link):
                key, value = name, root.removeprefix(link)
        systems = [volume.system for volume in self._volumes if volume.system is not None]
        have = {
            "UUID": [system.uuid.lower() for system in systems],
            "LABEL": [system.label.lower() for system in systems],
            "PARTUUID": [volume.unique.lower() for volume in self._volumes],
            "PARTLABEL": [volume.label.lower() for volume in self._volumes],
        }.get(key)
        return value.strip('"').lower(), None if "\\x" in value or "/" in value else have

    def _absent(self, root: str) -> str:
        """Say what is not there of what `root=` names; nothing where it is, or where that cannot be told."""
        value, have = self._named(root)
        return "" if have is None or value in have else f"the disk has {', '.join(filter(None, have)) or 'none'}"

    def _count(self, root: str) -> int:
        """Return how many `root=` fits; the parts of one btrfs have one name."""
        value, have = self._named(root)
        if any(volume.system is not None and volume.system.type == "btrfs" for volume in self._volumes):
            return 0
        return 0 if have is None else have.count(value)

    _LOADERS: ClassVar[dict[str, _Loader]] = {
        "systemd-boot": _Loader(section=".sdmagic", says=b"LoaderInfo: systemd-boot", follow=_systemd_boot),
        "shim": _Loader(component=b"\nshim,", follow=_shim),
        "GRUB": _Loader(section="mods", says=b"GRUB", follow=_grub),
    }
    """The boot loaders that are followed; another is another row, and a method that finds its kernel."""


def _text(files: Files | None, path: str) -> str:
    if files is None or not path or (real := files.find(path)) is None:
        return ""
    return files.read(real, _TEXT).decode("utf-8", errors="replace")


def _names(files: Files | None) -> list[str]:
    return list(files.names().values()) if isinstance(files, fat.Files) else []


def _osrel(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
