"""How each boot loader comes to a kernel: what it reads, which entry it starts, and what that names.

Each is told the trail, its ESP (none under a BIOS) and its own path there.
"""

import re
from collections.abc import Iterator

from vmtests.causes import Cause
from vmtests.host.architecture import GUEST
from vmtests.image import layout, linux, loader, pe
from vmtests.image.check import Check, breach, clean, note, passed
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import Files, FilesError
from vmtests.image.layout import Volume
from vmtests.image.trail import SUBJECT, Trail, text

_UNIFIED = "/EFI/Linux"
_WHOLE = 8 << 20  # bytes of a boot loader
_SYSTEMD_BOOT = re.compile(rb"LoaderInfo: systemd-boot (\d{1,5})")
_UKI_SINCE = 258  # systemd's NEWS
_CSV = 1 << 16  # bytes of shim's table of boot loaders
_PROMPT = re.compile(r"(?mi)^[ \t]*(?:prompt\s+[1-9]|(?:ui|default)\s+\S*menu\.c32)")
_TIMEOUT = re.compile(r"(?mi)^[ \t]*(?:total)?timeout\s+0*[1-9]")
_SYSLINUX = (
    "/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf", "/boot/syslinux/extlinux.conf", "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg", "/syslinux/syslinux.cfg", "/syslinux.cfg",
)  # fmt: skip
_LIMINE = ("/boot/limine/limine.conf", "/boot/limine.conf", "/limine/limine.conf", "/limine.conf")


def names(files: Files | None) -> list[str]:
    """Return the paths of all files of a FAT; none of another file system."""
    return list(files.names().values()) if isinstance(files, FatFiles) else []


def systemd_boot(trail: Trail, esp: Volume | None, path: str) -> Iterator[Check]:
    """Follow systemd-boot, by its entries and unified kernels on ESP and XBOOTLDR."""
    assert esp is not None
    own = trail.open(esp)
    said_version = None if own is None else _SYSTEMD_BOOT.search(own.read(path, _WHOLE))
    version = int(said_version[1]) if said_version else None
    found: list[tuple[loader.Entry, Volume, Files]] = []
    lost: list[str] = []
    # What it reads is what firmware reads: FAT, and what it has loaded drivers for (src/boot/drivers.c).
    drivers = [] if own is None else own.below("/EFI/systemd/drivers", f"{GUEST.efi}.efi")
    unread = ""
    for volume in (esp, *(volume for volume in trail.volumes if volume.type == layout.XBOOTLDR)):
        if volume.readable != "vfat" and not drivers:
            continue
        if (files := trail.open(volume)) is None:
            unread = f"{volume.where}, for which there may be a driver, is not read here"
        else:
            found += _entries(volume, files, lost, version)
    setting = dict(loader.pairs(text(trail.open(esp), "/loader/loader.conf")))
    if setting.get("timeout") == "menu-force":
        yield waiting("systemd-boot", "a key for ever: `timeout` is menu-force", "/loader/loader.conf")
    entry = loader.chosen([item for item, _, _ in found], setting.get("default", ""))
    if unread:
        yield note(SUBJECT, "systemd-boot", "not followed", unread)
    if entry is None and unread:
        return
    if entry is None:
        said = "; ".join(lost[:3]) or "no entry in /loader/entries and no unified kernel image in /EFI/Linux"
        cause = Cause.KERNEL_MISSING if lost else Cause.ENTRY_MISSING
        yield breach(SUBJECT, "entry", "missing", f"systemd-boot has nothing to start: {said}", cause=cause)
        return
    for said in lost:
        yield note(SUBJECT, "entry", "skipped", f"systemd-boot leaves an entry out: {said}")
    volume, files = next((volume, files) for item, volume, files in found if item is entry)
    if entry.left == 0:
        yield note(SUBJECT, "entry", entry.path, f"{entry.path} has no tries left, and nothing else is there")
    trail.files.append(entry.path)
    yield passed(SUBJECT, "entry", entry.path)
    if entry.devicetree and files.find(entry.devicetree) is None:
        # src/boot/boot.c, image_start(): without it the entry is not started.
        said = f"devicetree {clean(entry.devicetree)}, named by {entry.path}, is not on {volume.where}"
        yield breach(SUBJECT, "devicetree", "missing", said, cause=Cause.BOOTLOADER_ERROR)
    if entry.unified is None:
        trail.steps.append(entry.path)
        kernel, initrds = entry.kernel or "", entry.initrds
        yield from linux.entry(trail, files, volume, kernel, initrds, entry.options, entry.path, program=True)
        return
    head = files.read(files.find(entry.unified) or "", pe.HEAD)
    program = pe.parse(head)
    if isinstance(program, str) or (reason := pe.fault(program)) is not None:
        reason = program if isinstance(program, str) else reason
        said = f"{entry.unified}, which systemd-boot starts, is no EFI program for {GUEST.shown}: {reason}"
        yield breach(SUBJECT, "kernel", entry.unified, said, cause=Cause.KERNEL_INVALID)
    elif program.is_uki:
        yield from linux.unified(trail, volume, entry.unified, program, entry.options)
    elif pe.parse_kernel(head) is not None:
        # An `initrd` line is for `linux` only (src/boot/boot.c, initrd_prepare()).
        yield from linux.kernel_alone(trail, files, entry.unified, entry.options)


def _entries(
    volume: Volume, files: Files, lost: list[str], loader_version: int | None
) -> Iterator[tuple[loader.Entry, Volume, Files]]:
    try:
        for path in files.below("/loader/entries", ".conf"):
            name = path.rpartition("/")[2].lower()
            entry = loader.parse(text(files, path), path)
            program = entry.kernel or entry.unified
            if name.startswith(("auto-", ".")) or entry.architecture.lower() not in ("", GUEST.efi):
                continue
            if program is None:
                lost.append(f"{path} names no kernel")
            elif entry.by_uki and loader_version is not None and loader_version < _UKI_SINCE:
                lost.append(f"{path} says `uki`, which systemd-boot {loader_version} does not know: say `efi`")
            elif files.find(program) is None:
                lost.append(f"kernel {clean(program)}, named by {path}, is not on {volume.where}")
            else:
                yield entry, volume, files
        for path in files.below(_UNIFIED, ".efi"):
            name, left = loader.counted(path.rpartition("/")[2])
            head = pe.parse(files.read(path, pe.HEAD))
            section = None if isinstance(head, str) else head.sections.get(".osrel")
            if not isinstance(head, str) and head.machine != GUEST.pe_machine:
                lost.append(f"{path} is for another machine ({head.machine:04x})")
                continue
            if name.lower().startswith(("auto-", ".")) or section is None:
                lost.append(f"{path} is no unified kernel image with an .osrel section")
                continue
            osrel = files.pick(path, ((section.offset, min(section.size, 1 << 16)),))[0]
            told = _osrel(osrel.decode("utf-8", errors="replace"))
            if not any(told.get(key) for key in ("PRETTY_NAME", "IMAGE_ID", "NAME", "ID")):
                # src/boot/bootspec-util.c, bootspec_pick_name_version_sort_key()
                lost.append(f"the .osrel section of {path} has no ID, NAME, IMAGE_ID or PRETTY_NAME")
                continue
            version = (told.get(key, "") for key in ("IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"))
            entry = loader.Entry(
                id=name, path=path, unified=path, left=left,
                version=next((said for said in version if said), ""),
                sort_key=told.get("IMAGE_ID") or told.get("ID", ""),
            )  # fmt: skip
            yield entry, volume, files
    except FilesError as error:
        lost.append(f"the files of {volume.where} cannot be read: {error}")


def waiting(program: str, what: str, place: str) -> Check:
    """Return the note of a boot loader that does not go on by itself."""
    return note(SUBJECT, "menu", "waits", f"{program} waits for {clean(what)} ({place})", cause=Cause.BOOT_MENU)


def _osrel(said: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in said.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def shim_second(trail: Trail, esp: Volume, path: str) -> str:
    """Return the program that shim starts: the one beside it, or the one its fallback finds by a table.

    Their names are built in (DEFAULT_LOADER and FALLBACK in shim's Makefile); SUSE gives others than upstream.
    """
    files = trail.open(esp)
    assert files is not None
    directory, program = path.rpartition("/")[0], files.read(path, _WHOLE)

    def built_in(*given: str) -> str:
        said = [name for name in given if f"\\{name}".encode("utf-16-le") in program]
        there = [name for name in given if trail.has(esp, f"{directory}/{name}")]
        return f"{directory}/{[*said, *there, *given][0]}"

    if directory.upper() == "/EFI/BOOT" and trail.has(esp, built_in(f"fb{GUEST.efi}.efi", "fallback.efi")):
        # From there shim starts its fallback before any other (shim.c, should_use_fallback()), which makes an entry
        # of every line of the table in each directory of \EFI and starts the first (fallback.c, find_boot_csv()).
        paths = sorted(names(files))
        tables = {name.rpartition("/")[0]: name for name in paths if name.lower().endswith("/boot.csv")}
        own = f"/boot{GUEST.efi}.csv"
        tables |= {name.rpartition("/")[0]: name for name in paths if name.lower().endswith(own)}
        for place, name in sorted(tables.items()):
            table = files.read(name, _CSV).decode("utf-16", errors="replace")
            for line in table.splitlines():
                if (said := line.partition(",")[0].strip("\ufeff ")) and trail.has(esp, there := f"{place}/{said}"):
                    return there
    return built_in(f"grub{GUEST.efi}.efi", "grub.efi")


def syslinux(trail: Trail, esp: Volume | None, program: str) -> Iterator[Check]:
    """Follow SYSLINUX or EXTLINUX, by the label that its configuration starts (SYSLINUX' doc/syslinux.txt)."""
    core = "ldlinux.e64"
    if esp is not None and not any(path.lower().endswith(f"/{core}") for path in names(trail.open(esp))):
        said = f"{program} (SYSLINUX) does not find {core}, the rest of itself, on {esp.where}"
        yield breach(SUBJECT, "boot loader", "missing", said, f"put {core} beside it", cause=Cause.BOOTLOADER_ERROR)
        return
    beside = f"{program.rpartition('/')[0]}/syslinux.cfg"
    for volume in [esp] if esp else trail.volumes:
        for place in (beside, "/EFI/syslinux/syslinux.cfg", *_SYSLINUX) if esp else _SYSLINUX:
            if not trail.has(volume, place):
                continue
            files = trail.open(volume)
            assert files is not None
            script = text(files, place)
            found = loader.syslinux(script)
            if _PROMPT.search(script) and not _TIMEOUT.search(script):
                yield waiting("SYSLINUX", "a key for ever: there is no `timeout`", place)
            if found is None or not found.kernel or found.kernel.endswith((".c32", ".0", ".bin", ".bss", ".img")):
                said = f"what {place} on {volume.where} starts is no Linux, or is not followed"
                yield note(SUBJECT, "SYSLINUX", "not followed", said)
                return
            home = place.rpartition("/")[0]
            near = [name if name.startswith("/") else f"{home}/{name}" for name in (found.kernel, *found.initrds)]
            kernel, *initrds = (_plain(name) for name in near)
            trail.steps.append(f"{place} {found.title!r}")
            trail.files.append(place)
            yield passed(SUBJECT, "entry", f"{place} {found.title!r}")
            yield from linux.entry(trail, files, volume, kernel, tuple(initrds), found.options, place)
            return
    yield note(SUBJECT, "SYSLINUX", "not followed", "no configuration of SYSLINUX was found where it can be read here")


def _plain(path: str) -> str:
    """Return a path without `.` and `..`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def limine(trail: Trail, esp: Volume | None, program: str) -> Iterator[Check]:
    """Follow Limine, by the entry that its configuration starts (Limine's CONFIG.md)."""
    beside = f"{program.rpartition('/')[0]}/limine.conf"
    for volume in sorted(trail.volumes, key=lambda volume: volume is not esp):
        for place in (beside, *_LIMINE):
            if not trail.has(volume, place):
                continue
            files = trail.open(volume)
            assert files is not None
            script = text(files, place)
            found = loader.limine(script)
            if re.search(r"(?mi)^timeout:\s*no\s*$", script):
                yield waiting("Limine", "a key for ever: `timeout` is no", place)
            paths = [] if found is None else [_on_boot(name) for name in (found.kernel or "", *found.initrds)]
            if found is None or None in paths:
                yield note(SUBJECT, "Limine", "not followed", f"what {place} starts is no Linux, or is not followed")
                return
            trail.steps.append(f"{place} {found.title!r}")
            trail.files.append(place)
            yield passed(SUBJECT, "entry", f"{place} {found.title!r}")
            kernel, *initrds = (path or "" for path in paths)
            yield from linux.entry(trail, files, volume, kernel, tuple(initrds), found.options, place)
            return
    yield note(SUBJECT, "Limine", "not followed", "no limine.conf was found where it can be read here")


def _on_boot(name: str) -> str | None:
    """Return the path of a file on the volume that Limine is on; None where it is elsewhere."""
    match = re.fullmatch(r"(?:boot\(\):)?(/[^#]*)(?:#.*)?", name)
    return match[1] if match else None


def refind(_: Trail, esp: Volume | None, program: str) -> Iterator[Check]:
    """Say that rEFInd looks for kernels by itself."""
    where = "" if esp is None else f" on {esp.where}"
    said = f"{program}{where} is rEFInd, which looks for kernels on all file systems; that is not followed"
    yield note(SUBJECT, "rEFInd", "not followed", said)
