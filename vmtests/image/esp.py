"""What the EFI system partition has to hold: boot loader, entry, kernel, initrd; or a unified image."""

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.contract import Contract
from vmtests.host.architecture import GUEST
from vmtests.image import fat, pe
from vmtests.image import loader as order
from vmtests.image.check import Check, Readable, Version, Word, breach, note, passed
from vmtests.image.cmdline import LINE_LIMIT, values
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.sizes import format_size

TEXT_LIMIT = 1 << 16
"""Bytes of an entry, a configuration or a command line that are read."""

_ENTRIES = "/loader/entries"
_UKI_DIRECTORY = "/EFI/Linux"  # Boot Loader Specification, type #2
_SUBJECT = "ESP"
_LOADER = (Cause.BOOTLOADER_MISSING, Cause.BOOTLOADER_INVALID)
_KERNEL = (Cause.KERNEL_MISSING, Cause.KERNEL_INVALID)

Checks = Generator[Check, None, Version | None]
"""Checks that know in the end which kernel boots: its major and minor version, None where it says none."""

Programs = Generator[Check, None, tuple[pe.Program, bytes] | None]
"""Checks that know in the end what a program's headers and first bytes are, None where it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A type #1 entry of the Boot Loader Specification; paths are as written."""

    title: str
    kernel: str | None
    initrds: tuple[str, ...]
    options: str


def parse_entry(text: str) -> Entry:
    """Read an entry; the last of a key wins but for lists."""
    values: dict[str, list[str]] = {}
    for key, value in order.pairs(text):
        values.setdefault(key, []).append(value)
    kernel = values.get("linux") or values.get("efi")
    return Entry(
        title=values.get("title", [""])[-1],
        kernel=kernel[-1] if kernel else None,
        initrds=tuple(values.get("initrd", ())),
        options=" ".join(values.get("options", ())),
    )


def check_boot_sector(partition: Readable, where: str) -> Iterator[Check]:
    """Check the FAT boot sector of the ESP for what OVMF can read; `where` names the partition."""
    sector = fat.parse(partition.read(0, 512))
    if sector is None:
        head = partition.read(0, 3).hex() or "nothing"
        yield breach(
            _SUBJECT,
            "boot sector",
            head,
            f"no FAT boot sector on {where}: it begins with {head}",
            cause=Cause.ESP_UNREADABLE,
        )
        return
    kind = f"{sector.type}, {sector.clusters} clusters"
    # OVMF of 2022.11 and of 2025.02 start programs from sectors of 512 to 4096 bytes alike: what counts are clusters.
    yield passed(_SUBJECT, "sector size", sector.sector_size)
    if sector.fat32_layout and sector.type != "FAT32":
        yield breach(
            _SUBJECT,
            "FAT type",
            kind,
            f"FAT32 on {where} has {sector.clusters} clusters only, so OVMF reads it as {sector.type}",
            "mkfs.vfat -s1, smaller sectors, or a larger partition: FAT32 has 65525 clusters at least",
            cause=Cause.ESP_UNREADABLE,
        )
    elif not sector.fat32_layout and sector.type == "FAT32":
        text = f"FAT16 on {where} has {sector.clusters} clusters, so OVMF reads it as FAT32"
        yield breach(_SUBJECT, "FAT type", kind, text, cause=Cause.ESP_UNREADABLE)
    else:
        yield passed(_SUBJECT, "FAT type", kind)
    if sector.size > partition.size:
        text = f"FAT on {where} has {sector.size} bytes, but the partition has {partition.size}"
        yield breach(_SUBJECT, "size", format_size(sector.size), text, cause=Cause.ESP_UNREADABLE)
    else:
        yield passed(_SUBJECT, "size", format_size(sector.size))


def check_files(files: FatFiles, contract: Contract) -> Checks:
    """Check what the firmware, the boot loader and the kernel will look for on the ESP."""
    try:
        files.names()
    except FilesError as error:
        yield breach(
            _SUBJECT,
            "files",
            "unreadable",
            f"the files of the ESP cannot be listed: {error}",
            cause=Cause.ESP_UNREADABLE,
        )
        return None
    loader = yield from _program(files, contract.boot.loader, "boot loader", _LOADER)
    if loader is not None and loader[0].is_uki:
        return (yield from _uki(files, contract.boot.loader, contract))
    yield from _loader_config(files, contract)
    if files.find(contract.boot.entry) is not None:
        return (yield from _entry(files, contract.boot.entry, contract))
    try:
        others = [order.parse(_text(files, path), path) for path in files.below(_ENTRIES, ".conf")]
    except FilesError:
        others = []
    chosen = order.chosen([entry for entry in others if entry.kernel and files.find(entry.kernel)], "")
    if chosen is not None:
        text = f"systemd-boot starts {chosen.path}, as after a rebuild; the contract has {contract.boot.entry}"
        yield note(_SUBJECT, "entry", chosen.path, text)
        return (yield from _entry(files, chosen.path, contract))
    if images := files.below(_UKI_DIRECTORY, ".efi"):
        # systemd-boot starts the newest.
        images.sort(key=functools.cmp_to_key(order.compare_versions))
        return (yield from _uki(files, images[-1], contract))
    yield breach(
        _SUBJECT,
        "entry",
        "missing",
        f"loader entry {contract.boot.entry} is not on the ESP, nor a unified kernel image",
        f"there is {', '.join(entry.path for entry in others[:5])}" if others else None,
        cause=Cause.ENTRY_MISSING,
    )
    return None


def _program(files: FatFiles, path: str, what: str, causes: tuple[Cause, Cause]) -> Programs:
    """Check that the firmware would start a program; give its headers and its first bytes if so.

    `causes` are that it is missing, and that it is none.
    """
    missing, invalid = causes
    if (real := files.find(path)) is None:
        hint = f"bootctl install, or copy {GUEST.systemd_boot} there" if what == "boot loader" else None
        yield breach(_SUBJECT, what, "missing", f"{what} {path} is not on the ESP", hint, cause=missing)
        return None
    try:
        head = files.read(real, pe.HEAD)
    except FilesError as error:
        yield breach(_SUBJECT, what, real, f"{what} {real} cannot be read: {error}", cause=invalid)
        return None
    program = pe.parse(head)
    if (reason := pe.fault(program)) is not None or isinstance(program, str):
        text = f"{what} {real} is no EFI program for {GUEST.shown}: {reason}"
        yield breach(_SUBJECT, what, real, text, cause=invalid)
        return None
    yield passed(_SUBJECT, what, real)
    return program, head


def _loader_config(files: FatFiles, contract: Contract) -> Iterator[Check]:
    if (path := files.find(contract.boot.loader_config)) is None:
        yield passed(_SUBJECT, "loader configuration", "none")
        return
    try:
        text = files.read(path, TEXT_LIMIT).decode("utf-8", errors="replace")
    except FilesError as error:
        text = f"{path} cannot be read: {error}"
        yield breach(_SUBJECT, "loader configuration", path, text, "copy it again")
        return
    timeout = dict(order.pairs(text)).get("timeout", "0")
    if timeout not in ("0", "menu-hidden", "menu-disabled"):
        text = f"{path} has timeout {timeout}: the boot loader waits, and a boot takes longer"
        yield note(_SUBJECT, "loader configuration", path, text, cause=Cause.BOOT_MENU)
    else:
        yield passed(_SUBJECT, "loader configuration", path)


def _text(files: FatFiles, path: str) -> str:
    return files.read(path, TEXT_LIMIT).decode("utf-8", errors="replace")


def _entry(files: FatFiles, entry_path: str, contract: Contract) -> Checks:
    path = files.find(entry_path)
    assert path is not None
    try:
        entry = parse_entry(files.read(path, TEXT_LIMIT).decode("utf-8", errors="replace"))
    except FilesError as error:
        yield breach(
            _SUBJECT, "entry", path, f"loader entry {path} cannot be read: {error}", cause=Cause.ENTRY_MISSING
        )
        return None
    yield passed(_SUBJECT, "entry", f"{path} {entry.title!r}" if entry.title else path)
    version: Version | None = None
    if entry.kernel is None:
        yield breach(
            _SUBJECT,
            "kernel",
            "missing",
            f"loader entry {path} names no kernel",
            "a line linux /EFI/…",
            cause=Cause.KERNEL_MISSING,
        )
    else:
        version = yield from _kernel(files, entry.kernel, path)
    if not entry.initrds:
        yield breach(
            _SUBJECT,
            "initrd",
            "missing",
            f"loader entry {path} names no initrd",
            "a line initrd /EFI/…",
            cause=Cause.INITRD_MISSING,
        )
    for initrd in entry.initrds:
        yield from _initrd(files, initrd, path)
    yield from _options(entry.options, path, contract)
    return version


def _kernel(files: FatFiles, name: str, entry: str) -> Checks:
    if (path := files.find(name)) is None:
        yield breach(
            _SUBJECT,
            "kernel",
            "missing",
            f"kernel {name}, named by {entry}, is not on the ESP",
            cause=Cause.KERNEL_MISSING,
        )
        return None
    found = yield from _program(files, path, "kernel", _KERNEL)
    if found is None:
        return None
    program, head = found
    if program.is_uki:
        return (yield from _uki_kernel(files, path, program))
    return (yield from _release(pe.parse_kernel(head), path))


def _release(kernel: pe.Kernel | None, path: str) -> Checks:
    if kernel is None:
        text = f"kernel {path} is no Linux for x86: it has no 'HdrS' at byte 0x202"
        yield breach(
            _SUBJECT,
            Word.KERNEL_RELEASE,
            "none",
            text,
            "a bzImage has it (x86 boot protocol)",
            cause=Cause.KERNEL_INVALID,
        )
        return None
    if kernel.version is None:
        yield note(_SUBJECT, Word.KERNEL_RELEASE, kernel.release, f"kernel {path} does not say its version")
        return None
    yield passed(_SUBJECT, Word.KERNEL_RELEASE, kernel.release)
    return kernel.version


def _initrd(files: FatFiles, name: str, entry: str) -> Iterator[Check]:
    if (path := files.find(name)) is None:
        yield breach(
            _SUBJECT,
            "initrd",
            "missing",
            f"initrd {name}, named by {entry}, is not on the ESP",
            cause=Cause.INITRD_MISSING,
        )
        return
    try:
        head = files.read(path, 16)
    except FilesError as error:
        yield breach(_SUBJECT, "initrd", path, f"initrd {path} cannot be read: {error}", cause=Cause.INITRD_INVALID)
        return
    yield from _initrd_format(head, path)


def _initrd_format(head: bytes, path: str) -> Iterator[Check]:
    if (kind := pe.initrd_format(head)) is None:
        yield breach(
            _SUBJECT,
            "initrd",
            head[:6].hex() or "nothing",
            pe.no_initrd(head, path),
            f"formats are {', '.join(sorted(set(pe.INITRD_MAGICS.values())))}",
            cause=Cause.INITRD_INVALID,
        )
    else:
        yield passed(_SUBJECT, Word.INITRD, f"{path} ({kind})")


def _options(options: str, origin: str, contract: Contract) -> Iterator[Check]:
    yield passed(_SUBJECT, Word.COMMAND_LINE, options, limit=LINE_LIMIT)
    store = contract.store.mount + "/"
    found = values(options, "init")
    if not found:
        text = f"the command line of {origin} has no init="
        yield breach(_SUBJECT, Word.INIT, "missing", text, f"init={store}…/init", cause=Cause.INIT_MISSING)
    elif not found[-1].startswith(store) or "/../" in found[-1]:
        text = f"the command line of {origin} has init={found[-1]}, which is not in {contract.store.mount}"
        yield breach(_SUBJECT, Word.INIT, found[-1], text, cause=Cause.INIT_MISSING)
    else:
        yield passed(_SUBJECT, Word.INIT, found[-1])
    if roots := values(options, "root"):
        yield passed(_SUBJECT, Word.ROOT, roots[-1])
    wanted = contract.boot.console
    consoles = [value.split(",")[0] for value in values(options, "console")]
    if wanted not in consoles:
        text = f"the command line of {origin} has no console={wanted}: the boot cannot be followed"
        yield breach(
            _SUBJECT, Word.CONSOLE, " ".join(consoles) or "none", text, f"console={wanted}", cause=Cause.SCREEN_ONLY
        )
    elif consoles[-1] != wanted:
        text = f"the last console= of {origin} is {consoles[-1]}, so /dev/console is not on {wanted}"
        yield note(_SUBJECT, Word.CONSOLE, " ".join(consoles), text)
    else:
        yield passed(_SUBJECT, Word.CONSOLE, " ".join(consoles))


def _uki(files: FatFiles, path: str, contract: Contract) -> Checks:
    found = yield from _program(files, path, "unified kernel image", _KERNEL)
    if found is None:
        return None
    program, _ = found
    version = None if program.refers else (yield from _uki_kernel(files, path, program))
    wanted = [program.sections.get(name) for name in (".cmdline", ".initrd", ".linux")]
    ranges = [(found.offset, min(found.size, TEXT_LIMIT)) if found else (0, 0) for found in wanted]
    try:
        command_line, initrd, kernel = files.pick(path, ranges)
    except FilesError as error:
        yield breach(
            _SUBJECT, "unified kernel image", path, f"{path} cannot be read: {error}", cause=Cause.KERNEL_INVALID
        )
        return version
    if program.refers:
        version = yield from _kernel(files, pe.text(kernel), path)
    if wanted[1] is None:
        yield breach(
            _SUBJECT,
            "initrd",
            "missing",
            f"unified kernel image {path} has no .initrd section",
            cause=Cause.INITRD_MISSING,
        )
    elif program.refers:
        yield from _initrd(files, pe.text(initrd), path)
    else:
        yield from _initrd_format(initrd[:16], f"in {path}")
    yield from _options(pe.text(command_line), path, contract)
    return version


def _uki_kernel(files: FatFiles, path: str, program: pe.Program) -> Checks:
    section = program.sections.get(".linux")
    if section is None:
        yield breach(
            _SUBJECT,
            "kernel",
            "missing",
            f"unified kernel image {path} has no .linux section",
            cause=Cause.KERNEL_MISSING,
        )
        return None
    try:
        head = files.pick(path, ((section.offset, min(section.size, pe.HEAD)),))[0]
    except FilesError as error:
        yield breach(
            _SUBJECT, "kernel", path, f"the kernel in {path} cannot be read: {error}", cause=Cause.KERNEL_INVALID
        )
        return None
    return (yield from _release(pe.parse_kernel(head), f"in {path}"))
