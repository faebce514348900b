"""What a boot loader hands to Linux, held against what is there: kernel, initrds, `root=`, `init=`, `roothash=`."""

import re
from collections.abc import Callable, Generator, Iterator
from functools import partial

from vmtests.causes import Cause
from vmtests.host.architecture import GUEST
from vmtests.image import awaited, earlyinit, fstab, initramfs, kallsyms, named, pe
from vmtests.image.check import Check, Word, breach, clean, note, passed
from vmtests.image.cmdline import LINE_LIMIT, values, words
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import Files, FilesError
from vmtests.image.filesystem import CONTAINERS
from vmtests.image.layout import Volume
from vmtests.image.trail import SUBJECT, Trail
from vmtests.sizes import MIB

_LINE = 1 << 18  # bytes of a command line that are read
_KERNEL = 64 << 20  # bytes of a kernel that is looked into
_UNPACKED = 80 << 20  # of what is in it: Debian's has 57 MB
_MEMBER = rb"070701[0-9A-Fa-f]{104}"
_NOTHING_BUILT_IN = re.compile(
    _MEMBER + rb"dev\0{1,4}" + _MEMBER + rb"dev/console\0{1,4}" + _MEMBER + rb"root\0{1,4}" + _MEMBER + rb"TRAILER!!!"
)
"""The archive in a kernel that is built without an initramfs of its own (usr/default_cpio_list)."""

_OWN_LINE = re.compile(rb"root=[/PUL](?<=[ \0]root=.)")  # words first: a class in front costs a second
"""What a kernel has that brings a command line of its own (CONFIG_CMDLINE)."""

_FIRST_DISK = re.compile(r"/dev/(?:(?:s|v|xv|h)da|nvme0n1p|mmcblk0p)([0-9]{1,4})")
_INITS = ("/sbin/init", "/etc/init", "/bin/init", "/bin/sh")
"""What Linux starts without `init=` (init/main.c), and initramfs-tools and systemd where that is not there."""

_EMPTY = "has no file system"
_ENTRY = 128  # bytes of a GPT's entry: Linux takes no other (block/partitions/efi.c, is_gpt_valid())
_ELSEWHERE = ("ostree=", "boot=", "rd.live", "overlayroot", "systemd.volatile", "rdinit=")
"""Words of a command line by which another thing than root's init may be started."""


def unified(trail: Trail, volume: Volume, path: str, program: pe.Program, options: str = "") -> Iterator[Check]:
    """Check a unified kernel image; `options` are an entry's, which take the place of its own."""
    files = trail.open(volume)
    assert files is not None
    trail.steps.append(f"{path} (unified kernel image)")
    trail.files.append(path)
    kernel, line = program.sections[".linux"], program.sections.get(".cmdline")
    ranges = [(kernel.offset, min(kernel.size, pe.HEAD)), (line.offset, min(line.size, _LINE)) if line else (0, 0)]
    head, told, last = files.pick(path, [*ranges, (program.end - 1, 1)])
    if not last:
        yield _cut("unified kernel image", path, program.end, Cause.KERNEL_INVALID)
        return
    own = pe.text(told)
    if program.refers:
        named_initrd = program.sections.get(".initrd")
        place = (named_initrd.offset, min(named_initrd.size, _LINE)) if named_initrd else (0, 0)
        initrd_path = pe.text(files.pick(path, (place,))[0]).replace("\\", "/")
        initrds = (initrd_path,) if initrd_path else ()
        kernel_path = pe.text(head[: kernel.size]).replace("\\", "/")
        yield from entry(trail, files, volume, kernel_path, initrds, options or own, path, program=True)
        return
    release = yield from _release(trail, pe.parse_kernel(head), f"in {path}")
    found = None
    if (initrd := program.sections.get(".initrd")) is not None:
        found = yield from _initrd(trail, files, path, initrd.offset, initrd.size, release, f"in {path}")
    whole = partial(_section, files, path, kernel)
    more, another = _addons(trail, files, path)
    joined = " ".join(filter(None, (options or own, *more)))
    trees = [] if initrd is None else [None if found is None else found.tree]
    has_initrd = yield from _early_init([*trees, *([None] if another else [])], joined, path)
    yield from _options(trail, joined, path, has_initrd=has_initrd, initrds=found, kernel=whole)


def _addons(trail: Trail, files: Files, path: str) -> tuple[list[str], bool]:
    """Return what the addons of a unified kernel image put behind its command line, and whether one has an initrd.

    systemd-stub(7): those of all images come first, then those of this one; one for another machine is left out.
    """
    lines, initrd = [], False
    for directory in ("/loader/addons", f"{path}.extra.d"):
        for name in files.below(directory, ".addon.efi"):
            addon = pe.parse(files.read(name, pe.HEAD))
            if isinstance(addon, str) or pe.fault(addon) is not None:
                continue
            trail.files.append(name)
            initrd |= ".initrd" in addon.sections
            if (line := addon.sections.get(".cmdline")) is not None:
                told = files.pick(name, ((line.offset, min(line.size, _LINE)),))[0]
                lines.append(pe.text(told))
    return lines, initrd


def kernel_alone(trail: Trail, files: Files, path: str, options: str = "") -> Iterator[Check]:
    """Check a kernel that firmware or boot loader starts as a program: its initrd is named by `initrd=`."""
    initrds = tuple(value.replace("\\", "/") for value in values(options, "initrd"))
    yield from _parts(trail, files, path, initrds, options, path, where="the disk", optional=not options)


def entry(
    trail: Trail,
    files: Files,
    volume: Volume,
    kernel: str,
    initrds: tuple[str, ...],
    options: str,
    origin: str,
    *,
    program: bool = False,
) -> Iterator[Check]:
    """Check kernel, initrds and command line of an entry whose paths are on `volume`.

    With `program` the boot loader has firmware start the kernel, which then has to be an EFI program.
    """
    if files.find(kernel) is None:
        text = f"kernel {clean(kernel)}, named by {origin}, is not on {volume.where}"
        yield breach(SUBJECT, "kernel", "missing", text, cause=Cause.KERNEL_MISSING)
        return
    yield from _parts(trail, files, kernel, initrds, options, origin, where=volume.where, program=program)


def _parts(
    trail: Trail,
    files: Files,
    kernel: str,
    initrds: tuple[str, ...],
    options: str,
    origin: str,
    *,
    where: str,
    optional: bool = False,
    program: bool = False,
) -> Iterator[Check]:
    real = files.find(kernel)
    assert real is not None
    trail.files.append(real)
    head = files.read(real, pe.HEAD)
    end = pe.kernel_size(head)
    if end and not files.pick(real, ((end - 1, 1),))[0]:
        yield _cut("kernel", real, end, Cause.KERNEL_INVALID)
        return
    known = pe.parse_kernel(head)
    release = yield from _release(trail, known, real)
    if program and known is not None and (reason := pe.fault(pe.parse(head))) is not None:
        text = f"kernel {real}, which {origin} has firmware start, is no EFI program: {reason}"
        hint = "build it with CONFIG_EFI_STUB=y"
        yield breach(SUBJECT, "kernel", "no EFI program", text, hint, cause=Cause.KERNEL_INVALID)
    found: initramfs.Modules | None = None
    trees: list[dict[str, earlyinit.Node] | None] = []
    for name in initrds:
        if (place := files.find(name)) is None:
            trees.append(None)
            text = f"initrd {clean(name)}, named by {origin}, is not on {where}"
            yield breach(SUBJECT, "initrd", "missing", text, cause=Cause.INITRD_MISSING)
        else:
            trail.files.append(place)
            more = yield from _initrd(trail, files, place, 0, initramfs.LIMIT, release, place)
            trees.append(None if more is None else more.tree)
            found = more if found is None or (more is not None and more.hands_over) else found
    if not optional:
        whole = partial(files.read, real, _KERNEL)
        has_initrd = yield from _early_init(trees, options, origin)
        yield from _options(trail, options, origin, has_initrd=has_initrd, initrds=found, kernel=whole)


def _early_init(
    trees: list[dict[str, earlyinit.Node] | None], options: str, origin: str
) -> Generator[Check, None, bool]:
    """Check that the initrds have a program that is started; give whether they do, as far as that is known.

    Else the kernel mounts `root=` itself (init/main.c, kernel_init_freeable()).
    """
    known = [tree for tree in trees if tree is not None]
    if not trees or len(known) < len(trees):
        return bool(trees)
    whole = {name: node for tree in known for name, node in tree.items()}
    program = (values(options, "rdinit") or ["/init"])[-1]
    if not (why := earlyinit.fault(whole, program)):
        if why := earlyinit.panic(whole, program):
            text = f"the initrd of {origin} cannot be started: {why}"
            yield breach(SUBJECT, "initrd", why, text, "put it into the initrd", cause=Cause.INITRD_INVALID)
        return True
    text = f"nothing of the initrd is started: {why}; the kernel mounts root= of {origin} by itself"
    yield note(SUBJECT, "initrd", why, text, cause=Cause.INITRD_INVALID)
    return False


def _cut(what: str, path: str, end: int, cause: Cause) -> Check:
    text = f"{what} {path} was cut: by its headers it has {end} bytes at least"
    return breach(SUBJECT, what, "cut", text, "copy it again", cause=cause)


def _release(trail: Trail, kernel: pe.Kernel | None, path: str) -> Generator[Check, None, str | None]:
    if kernel is None:
        text = f"kernel {path} is no Linux for x86: it has no 'HdrS' at byte 0x202"
        yield breach(SUBJECT, Word.KERNEL_RELEASE, "none", text, cause=Cause.KERNEL_INVALID)
        return None
    trail.steps.append(f"Linux {kernel.release}")
    trail.kernel = kernel.version
    yield passed(SUBJECT, Word.KERNEL_RELEASE, kernel.release)
    return kernel.release


def _initrd(
    trail: Trail, files: Files, path: str, offset: int, size: int, release: str | None, shown: str
) -> Generator[Check, None, initramfs.Modules | None]:
    (head,) = files.pick(path, ((offset, min(size, 16)),))
    if pe.initrd_format(head) is None:
        begin = head[:6].hex() or "nothing"
        yield breach(SUBJECT, "initrd", begin, pe.no_initrd(head, shown), cause=Cause.INITRD_INVALID)
        return None
    yield passed(SUBJECT, "initrd", shown)
    return (yield from initramfs.check_release(files.chunks(path, offset, size), shown, release, trail.toolbox))


def _options(
    trail: Trail,
    options: str,
    origin: str,
    *,
    has_initrd: bool,
    initrds: initramfs.Modules | None,
    kernel: Callable[[], bytes],
) -> Iterator[Check]:
    trail.options = options
    yield passed(SUBJECT, Word.COMMAND_LINE, options, limit=LINE_LIMIT)
    consoles = [value.split(",")[0] for value in values(options, "console")]
    if not any(console.startswith(GUEST.console.rstrip("0")) for console in consoles):
        missing = f"has no console={GUEST.console}: the boot cannot be followed on the serial line"
        text = f"the command line of {origin} {missing}"
        yield note(SUBJECT, Word.CONSOLE, " ".join(consoles) or "none", text, cause=Cause.SCREEN_ONLY)
    else:
        yield passed(SUBJECT, Word.CONSOLE, " ".join(consoles))
    yield from _hashes(trail, options, origin)
    yield from awaited.check(trail, options, origin)
    roots = values(options, "root")
    if not roots:
        if not has_initrd and "$" not in options:  # a boot loader's variable may have it
            text = f"{origin} has neither an initrd that is started nor root=: the kernel has nothing to mount"
            yield _without(trail, text, kernel, "root device", Cause.MOUNT_FAILED)
        return
    root = roots[-1]
    yield passed(SUBJECT, "root", root)
    by_table = _FIRST_DISK.fullmatch(root) or named.key(root)[0] in named.LINKS.values()
    if by_table and trail.entry_size not in (0, _ENTRY):
        text = f"Linux ignores the GPT: its entries have {trail.entry_size} bytes, and not {_ENTRY}"
        text = f"{text}; root={clean(root)} of {origin} leads nowhere"
        hint = "sfdisk --label gpt writes it anew"
        yield breach(SUBJECT, "root device", root, text, hint, cause=Cause.GPT_DESTROYED)
        return
    if len(fitting := _fitting(trail, root)) == 1:
        trail.root = fitting[0]
    # What hides others has file systems, and no partitions of this disk.
    if (wrong := _absent(trail, root)) and not (trail.hidden and named.key(root)[0] in ("UUID", "LABEL")):
        text = f"root={clean(root)} of {origin} leads nowhere: {wrong}"
        yield breach(SUBJECT, "root device", root, text, cause=Cause.PARTITION_MISSING)
    elif len(fitting) > 1 and not _btrfs(trail):
        count = len(fitting)
        text = f"root={clean(root)} of {origin} fits {count} partitions of the disk: which one is mounted is chance"
        yield note(SUBJECT, "root device", root, text)
    elif not has_initrd and root.partition("=")[0] in ("UUID", "LABEL"):
        none = "none that is started" if initrds is not None else "none"
        text = f"root={clean(root)} of {origin} needs an initrd, and there is {none}: the kernel knows PARTUUID= only"
        yield _without(trail, text, kernel, "initrd", Cause.INITRD_MISSING)
    elif fitting and (what := _not_mounted(fitting[0])) and not has_initrd:
        where = f"{fitting[0].where}, which {what}"
        text = f"root={clean(root)} of {origin} is {where}: without an initrd nothing mounts it"
        yield _without(trail, text, kernel, "root device", Cause.MOUNT_FAILED)
    elif fitting and what == _EMPTY:
        text = f"root={clean(root)} of {origin} is {fitting[0].where}, which {what}: the initrd has to fill it"
        yield note(SUBJECT, "root device", root, text)
    elif len(fitting) == 1:
        yield from _init(trail, fitting[0], options, origin, has_initrd=has_initrd, initrds=initrds)
        yield from fstab.check(trail, fitting[0])


def _without(trail: Trail, text: str, kernel: Callable[[], bytes], what: str, cause: Cause) -> Check:
    """Return the breach that a boot without an initrd is, unless the kernel may have one in itself."""
    image = kallsyms.unpack(kernel(), trail.toolbox, _UNPACKED)
    if image is not None and _NOTHING_BUILT_IN.search(image) and not _OWN_LINE.search(image):
        return breach(SUBJECT, what, "missing", text, cause=cause)
    return note(SUBJECT, what, "missing", f"{text}, unless one is built into the kernel")


def _section(files: Files, path: str, section: pe.Section) -> bytes:
    return files.pick(path, ((section.offset, min(section.size, _KERNEL)),))[0]


def _not_mounted(root: Volume) -> str:
    """Say what a volume is that no kernel mounts by itself; nothing where it may be a file system."""
    if root.system is not None:
        unmounted = (CONTAINERS - {"bcachefs"}) | {"swap", "DM_verity_hash"}
        return f"is {root.system.type}" if root.readable in unmounted else ""
    return "" if root.content.read(0, MIB).strip(b"\0") else _EMPTY


def _init(
    trail: Trail, root: Volume, options: str, origin: str, *, has_initrd: bool, initrds: initramfs.Modules | None
) -> Iterator[Check]:
    """Check that what is started last is on root, where nothing else can be meant.

    An initrd may be the whole system, lay something over root, or look for its init elsewhere (ostree, live systems):
    only one that is known to hand over to root itself proves anything.
    """
    given = values(options, "init")[-1:]
    if "$" in "".join(given):
        return
    try:
        files = trail.open(root)
        deployed = [path for path in values(options, "ostree")[-1:] if path.startswith("/")]
        if isinstance(files, ExtFiles) and deployed and files.lacks(deployed[0]):
            text = f"ostree={clean(deployed[0])} of {origin} is not on {root.where}: there is no such deployment"
            yield breach(SUBJECT, Word.INIT, deployed[0], text, cause=Cause.INIT_MISSING)
        if files is None or any(word.startswith(_ELSEWHERE) for word in words(options)):
            return
        lacks = files.lacks if isinstance(files, ExtFiles) else lambda path: files.find(path) is None
        missing = [path for path in (*given, *_INITS) if lacks(path)]
    except FilesError:
        return
    told = f"{', '.join(map(clean, given or _INITS))}"
    if len(missing) == len(given) + len(_INITS) or (given and not has_initrd and given[0] in missing):
        sure = not has_initrd or (initrds is not None and initrds.hands_over)
        text = f"nothing is there to be started on {root.where}, the root of {origin}: no {told}"
        if sure:
            yield breach(SUBJECT, Word.INIT, told, text, cause=Cause.INIT_MISSING)
        else:
            yield note(SUBJECT, Word.INIT, told, f"{text}; the initrd has to be the whole system")
    elif given and given[0] in missing:
        text = f"init={told} of {origin} is not on {root.where}: an initrd may start /sbin/init instead"
        yield note(SUBJECT, Word.INIT, told, text)


def _hashes(trail: Trail, options: str, origin: str) -> Iterator[Check]:
    """Check that the partitions are there by whose UUIDs systemd finds what `roothash=` and `usrhash=` verify.

    They are the first and last 128 bits of the hash (systemd-veritysetup-generator(8)).
    """
    for what, kind in (("roothash", "root"), ("usrhash", "usr")):
        told = values(options, what)[-1:]
        elsewhere = (f"systemd.verity_{kind}_", "systemd.verity=", "rd.systemd.verity=")
        named = any(word.startswith(elsewhere) for word in words(options))
        if not told or named or not re.fullmatch(r"[0-9a-fA-F]{64,}", told[0]) or trail.hidden:
            continue
        kinds = {volume.type for volume in trail.volumes}
        trees = any(volume.system is not None and volume.system.type == "DM_verity_hash" for volume in trail.volumes)
        wanted = {told[0][:32].lower(), told[0][-32:].lower()}
        have = {volume.unique.replace("-", "").lower() for volume in trail.volumes}
        # A hash tree that is there, and of no such type, is somebody's who finds it otherwise.
        if (f"{kind}-{GUEST.shown}-verity" in kinds or not trees) and not wanted <= have:
            text = f"{what}= of {origin} is that of other partitions: none has the UUID {min(wanted - have)}"
            yield breach(SUBJECT, what, told[0], text, cause=Cause.PARTITION_MISSING)


def _fitting(trail: Trail, root: str) -> list[Volume]:
    """Return the volumes that `root=` fits."""
    if match := _FIRST_DISK.fullmatch(root):
        return [volume for volume in trail.volumes if volume.number == int(match[1])]
    return named.fitting(trail.volumes, *named.key(root))


def _absent(trail: Trail, root: str) -> str:
    """Say what is not there of what `root=` names; nothing where it is, or where that cannot be told."""
    if match := _FIRST_DISK.fullmatch(root):
        numbers = sorted(volume.number for volume in trail.volumes if volume.number)
        there = int(match[1]) in numbers or not numbers
        return "" if there else f"the disk has {', '.join(map(str, numbers))}"
    key, value = named.key(root)
    if not named.known(key, value) or "/" in value or _fitting(trail, root):
        return ""
    if not named.told(trail.volumes, key):
        return ""
    return f"the disk has {', '.join(filter(None, (named.have(volume, key) for volume in trail.volumes))) or 'none'}"


def _btrfs(trail: Trail) -> bool:
    """Whether there is a btrfs: all its parts have one name."""
    return any(volume.system is not None and volume.system.type == "btrfs" for volume in trail.volumes)
