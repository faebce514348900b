"""What an image, a disc, an archive or a configuration on them holds."""

import functools
import io
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from tests.trials.fuzz.limits import Parser
from vmtests.contract import TYPES
from vmtests.errors import VmtestsError
from vmtests.host import tools
from vmtests.host.formats import Format
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import contents, diff, ends, features, gpt, grub, initramfs, layout, loader, sbom
from vmtests.image.chain import Chain
from vmtests.image.check import Check
from vmtests.image.erofsfiles import ErofsFiles
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import Files, FilesError
from vmtests.image.inspect import inspect
from vmtests.image.source import Source, open_disk
from vmtests.machine.handover import copy
from vmtests.testing.images import LINUX, MemoryDisk, entry, kernel, program, seal

_ESP = layout.ESP
_READ = 1 << 22  # bytes of a file's content that are read


@functools.cache
def toolbox() -> Toolbox:
    """The tools of this host."""
    return tools.find()


class _Disk(MemoryDisk):
    """A disk in memory as an open image."""

    format = Format.RAW
    packing = ""
    checks = ()

    def range(self, offset: int, length: int) -> tuple[int, int]:
        """Nobody reads it: the files of a FAT are given otherwise."""
        del length
        return -1, offset


def _volumes(data: bytes) -> None:
    disk = _Disk(data)
    size = gpt.sector_size(disk)
    table = gpt.read(disk, size) if size else gpt.Table(sector_size=512, header=None, entries=(), checks=())
    for volume in layout.volumes(disk, table):
        list(layout.check(volume))
        volume.to_json()
        for kind in features.SYSTEMS:
            list(features.check(volume.content, kind, volume.where, (6, 1)))


def _discs() -> list[bytes]:
    mbr, logical = bytearray(64 * 512), bytearray(512)
    for index, (kind, start, count) in enumerate(((0x83, 2, 4), (0x05, 8, 40), (0xEF, 50, 4))):
        struct.pack_into("<4xB3xII", mbr, 446 + 16 * index, kind, start, count)
    struct.pack_into("<4xB3xII4xB3xII", logical, 446, 0x83, 1, 2, 0x05, 4, 8)
    mbr[510:512] = logical[510:512] = b"\x55\xaa"
    mbr[8 * 512 : 9 * 512] = mbr[12 * 512 : 13 * 512] = logical
    disc = bytearray(24 * 2048)
    disc[0x8000:0x8006], disc[0x8800:0x8806] = b"\1CD001", b"\0CD001"
    disc[0x8807 : 0x8807 + 23] = b"EL TORITO SPECIFICATION"
    struct.pack_into("<I", disc, 0x8847, 20)
    disc[20 * 2048 : 20 * 2048 + 2], disc[20 * 2048 + 30 : 20 * 2048 + 33] = b"\1\xef", b"\x55\xaa\x88"
    struct.pack_into("<I", disc, 20 * 2048 + 40, 22)
    return [bytes(mbr), bytes(disc), *_containers()]


_MAGICS = (
    (0, b"LUKS\xba\xbe\0\2"), (0, b"LABELONE"), (4096, b"\xfc\x4e\x2b\xa9\1\0\0\0"), (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"), (1024, b"\x10\x20\xf5\xf2"), (0, b"hsqs"), (4086, b"SWAPSPACE2"),
)  # fmt: skip


def _containers() -> list[bytes]:
    """Return the superblocks of those that are only named."""
    found = []
    for place, magic in _MAGICS:
        one = bytearray(0x10800)
        one[place : place + len(magic)] = magic
        found.append(bytes(one))
    return found


def _read(walk: Iterator[tuple[str, int, int, Callable[[], Iterator[bytes]]]]) -> None:
    for _, _, _, content in walk:
        left = _READ
        with suppress(FilesError):
            for piece in content():
                left -= len(piece)
                if left < 0:
                    break


def _erofs(data: bytes) -> None:
    _read(ErofsFiles(MemoryDisk(data)).walk(200, lambda _: True))


def _ext(data: bytes) -> None:
    files = ExtFiles(MemoryDisk(data))
    files.lacks("/boot/none")
    _read(files.walk(200, lambda _: True))


@contextmanager
def _tree() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root")
        (root / "boot/loader").mkdir(parents=True)
        (root / "boot/vmlinuz").write_bytes(kernel())
        (root / "boot/loader/a.conf").write_text("title a\n")
        (root / "boot/loader/fstab").write_text("/dev/sda2 / ext4 defaults 0 1\n/dev/sda1 /boot vfat defaults 0 2\n")
        (root / "nix/store/x").mkdir(parents=True)
        (root / "nix/store/x/init").write_bytes(b"#!/boot/vmlinuz\n")
        (root / "boot/loader/os-release").write_bytes(_PACKAGES[2])
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_bytes(_PACKAGES[0])
        (root / "sbin").mkdir()
        (root / "sbin/init").write_bytes(b"#!/boot/vmlinuz\n")
        (root / "etc").symlink_to("boot/loader")
        with (root / "sparse").open("wb") as sparse:
            sparse.truncate(1 << 20)
        yield root


@functools.cache
def _made(group: str, *command: str, size: int = 0) -> bytes:
    """Return what a tool, of those that come with `group`, makes of a small tree: `IMAGE` and `TREE` are places."""
    with _tree() as root:
        image = root.parent / "image"
        image.write_bytes(bytes(size))
        words = [{"IMAGE": str(image), "TREE": str(root)}.get(word, word) for word in command]
        run_in(toolbox().root(group), words)
        return image.read_bytes()


def _erofs_images() -> list[bytes]:
    return [
        _made("mkfs.erofs", "mkfs.erofs", "--quiet", *options, "IMAGE", "TREE")
        for options in ((), ("--chunksize=4096",), ("-Elegacy-compress",))
    ]


def _ext_images() -> list[bytes]:
    return [
        _made("debugfs", "mke2fs", "-q", "-F", "-t", kind, "-O", "^has_journal", "-d", "TREE", "IMAGE", size=1 << 19)
        for kind in ("ext4", "ext2")
    ]


_BETWEEN = b"\xff\0\xff\0"


def _files_of(data: bytes) -> dict[str, bytes]:
    """Return the files that are in data: a name and a content by turns."""
    parts = data.split(_BETWEEN)
    names = (name.decode("latin-1").replace("\n", "") for name in parts[::2])
    return {f"/{name.strip('/')}": content for name, content in zip(names, parts[1::2], strict=False)}


class _Given(FatFiles):
    """An ESP with these files."""

    def __init__(self, known: dict[str, bytes]) -> None:
        super().__init__(-1, 0)
        self._known = {path.lower(): (path, content) for path, content in known.items()}

    def names(self) -> dict[str, str]:
        return {key: path for key, (path, _) in self._known.items()}

    def find(self, path: str) -> str | None:
        return self.names().get("/" + path.replace("\\", "/").strip("/").lower())

    def below(self, directory: str, suffix: str) -> list[str]:
        start = directory.rstrip("/").lower() + "/"
        return sorted(path for key, path in self.names().items() if key.startswith(start) and key.endswith(suffix))

    def chunks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        if path.lower() not in self._known:
            raise FilesError("no such file")
        yield self._known[path.lower()][1][offset : offset + size]


def _boot(data: bytes) -> list[Check]:
    """Follow the way to boot on an ESP with any files, to a root that is as it should be."""
    disk = _Disk(_partitioned())
    table = gpt.read(disk, 512)
    volumes = layout.volumes(disk, table)
    given, read = _Given(_files_of(data)), layout.files

    def files(volume: layout.Volume, disk: Source) -> Files | None:
        return given if volume.readable == "vfat" else read(volume, disk)

    found: list[Check] = []
    with mock.patch.object(layout, "files", files):
        chain = Chain(disk, table, volumes, toolbox())
        with suppress(FilesError):
            found += chain.check()
        chain.listens()
    return found


def _fat(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        files = FatFiles(file.fileno(), 0)
        for path in list(files.names().values())[:50]:
            files.find(path)
            files.read(path, 1 << 16)
        files.below("/boot/loader", ".conf")


def _fat_images() -> list[bytes]:
    with _tree() as root:
        image, tree = root.parent / "image", toolbox().root("mcopy")
        image.write_bytes(bytes(160 << 10))
        (root / "boot/A long name, äöü").write_bytes(b"x" * 9000)
        run_in(tree, ["mkfs.vfat", str(image)])
        run_in(tree, ["mcopy", "-s", "-i", str(image), str(root / "boot"), "::/"])
        return [image.read_bytes()]


@functools.cache
def _partitioned() -> bytes:
    disk = bytearray(4096 * 512)
    types = {name: kind for kind, name in TYPES.items()}
    seal(disk, entry(types[_ESP], 64, 1087, "ESP") + entry(LINUX, 1088, 2111, "root"))
    boot = bytearray(512)
    struct.pack_into("<3s8sHBHBHHBH", boot, 0, b"\xeb\x3c\x90", b"MSDOS5.0", 512, 4, 4, 2, 512, 1024, 0xF8, 32)
    boot[510:] = b"\x55\xaa"
    disk[64 * 512 : 65 * 512] = boot
    disk[1088 * 512 : 2112 * 512] = _ext_images()[0]
    return bytes(disk)


def _joined(files: dict[str, bytes]) -> bytes:
    return _BETWEEN.join(
        part for name, content in files.items() for part in (name.replace("__", "/").encode(), content)
    )


_LOADER = program(sections={".sdmagic": b"#### LoaderInfo: systemd-boot 257 ####"})
_ENTRY = b"title a\nsort-key b\nlinux /k\ninitrd /i\noptions init=/nix/store/x/init root=/dev/sda2 console=ttyS0\n"
_GRUB = b"""set default=0\nsearch --fs-uuid --set=root 1234-5678\nif [ $a = b -o ( -f /k -a ! 1 -lt 2 ) ]; then
 set c=d\nelif probe --set=d -u $root; then\n c=$d\nfi
menuentry 'Debian' --class debian {\n linux /k root=/dev/sda2 ro console=ttyS0\n initrd /i\n}
submenu 'x' { menuentry y { linux /k }\n}\n"""
_SYSLINUX = b"DEFAULT a\nLABEL a\n MENU LABEL x\n KERNEL /k\n APPEND initrd=/i root=/dev/sda2 console=ttyS0\n"
_LIMINE = b"""timeout: 0\ndefault_entry: 1\n/a\n protocol: linux\n path: boot():/k\n module_path: boot():/i
 cmdline: root=/dev/sda2 console=ttyS0\n"""


def _ways() -> list[bytes]:
    linux, grub = kernel("6.1"), program(sections={"mods": b"GRUB"})
    uki = program(
        sections={
            ".osrel": b"ID=a\nVERSION_ID=1\n",
            ".cmdline": b"root=/dev/sda2 console=ttyS0",
            ".linux": linux,
            ".initrd": _initrd()[0],
        }
    )
    rest = {"k": linux, "i": _initrd()[0]}
    ways: list[tuple[bytes, dict[str, bytes]]] = [
        (_LOADER, {"loader__loader.conf": b"default a*\n", "loader__entries__a.conf": _ENTRY}),
        (_LOADER, {"EFI__Linux__a+3-1.efi": uki}),
        (grub, {"EFI__BOOT__grub.cfg": _GRUB}),
        (program(sections={".text": b"SYSLINUX"}), {"ldlinux.e64": b"", "EFI__BOOT__syslinux.cfg": _SYSLINUX}),
        (program(sections={".text": b"Limine"}), {"limine.conf": _LIMINE}),
        (
            program(sections={".sbat": b"\nshim,4"}),
            {
                "EFI__a__BOOTX64.CSV": "a.efi,b\n".encode("utf-16"),
                "EFI__BOOT__grubx64.efi": grub,
                "EFI__BOOT__grub.cfg": _GRUB,
            },
        ),
    ]
    return [_joined({"EFI__BOOT__BOOTX64.EFI": first, **more, **rest}) for first, more in ways]


def _menus(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    loader.syslinux(text)
    loader.limine(text)
    loader.order([loader.parse(part, f"/{number}.conf") for number, part in enumerate(text.split("\0\0")[:50])])
    grub.parse(text, grub.environment(text))
    grub.expand(text[:500], {"a": text[:100]})


def _bills(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    list(sbom._dpkg(text))
    list(sbom._apk(text))
    sbom._release(text)
    found = contents.Contents()
    for line in text.splitlines():
        found.add("file", line[:9], line)
    list(diff.changed(text.splitlines()[:200], text[::2].splitlines()[:200]))


_PACKAGES = [
    b"Package: a\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\nX: x\n y\n\nPackage: b\n",
    b"P:musl\nV:1.2\nA:x86_64\nL:MIT AND (GPL-2.0-only OR BSD)\n\nP:b\n",
    b'ID=debian\nVERSION_ID="13"\n# x\n',
]


def _members(data: bytes) -> None:
    kept: list[tuple[str, bytes]] = []
    initramfs.walk(iter([data]), toolbox(), lambda member: kept.append((member.name, member.read(1 << 16))))


def _initrd() -> list[bytes]:
    names = ("init", "usr/lib/modules/6.1/kernel/a.ko", "usr/lib/modules/6.1/modules.builtin", "TRAILER!!!")
    plain = b""
    for name in names:
        raw, content = name.encode() + b"\0", b"#!/init\n" if name[0] != "T" else b""
        head = b"070701" + b"".join(
            b"%08x" % n for n in (1, 0o100755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        )
        plain += (head + raw).ljust(-(-(len(head) + len(raw)) // 4) * 4, b"\0") + content
    return [plain, plain + bytes(512) + plain]


def _ends(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (path := Path(directory, "disk")).write_bytes(data)
        for form in (Format.QCOW, Format.VDI, Format.VHDX):
            ends.missing(path, form)


def _qemu(form: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        (raw := Path(directory, "raw")).write_bytes(_partitioned())
        path = Path(directory, "disk")
        small = ("-o", "block_size=1M,log_size=1M") if form == "vhdx" else ()
        toolbox().run("qemu-img", "convert", "-q", "-f", "raw", "-O", form, *small, str(raw), str(path))
        return path.read_bytes()


@functools.cache
def _qemus() -> list[bytes]:
    return [_qemu(form) for form in ("qcow2", "vmdk", "vpc", "vdi", "vhdx", "qcow", "parallels")]


def _open(data: bytes) -> None:
    """Open an image of any format, as `inspect` does, and read its begin and its end."""
    with tempfile.TemporaryDirectory() as directory:
        (path := Path(directory, "disk")).write_bytes(data)
        with open_disk(path, toolbox()) as disk:
            disk.read(0, 4096)
            disk.read(disk.size - 4096, 4096)


def _zips() -> list[bytes]:
    with io.BytesIO() as plain:
        with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("disk.raw", _partitioned())
            archive.writestr("readme", b"x")
        return [plain.getvalue()]


def _whole(data: bytes) -> None:
    """Do with an image all that is done without a machine."""
    with tempfile.TemporaryDirectory() as directory:
        (path := Path(directory, "disk.raw")).write_bytes(data)
        with suppress(VmtestsError):
            inspect(path, None, toolbox()).to_json()
        with suppress(VmtestsError):
            contents.read(path, toolbox())
        with suppress(VmtestsError):
            sbom.of_disk(path, toolbox()).to_json("disk")
        copy(path, Path(directory, "taken"))


def _esp() -> bytes:
    """Return a floppy disk on which a root on the third partition is booted from."""
    with tempfile.TemporaryDirectory() as directory:
        (image := Path(directory, "image")).write_bytes(bytes(360 << 10))
        for path, content in _files_of(_ways()[0].replace(b"/dev/sda2", b"/dev/sda3")).items():
            (place := Path(directory, "files", path.lstrip("/"))).parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        tree, files = toolbox().root("mcopy"), sorted(map(str, Path(directory, "files").iterdir()))
        run_in(tree, ["mformat", "-i", str(image), "-f", "360", "::"])
        run_in(tree, ["mcopy", "-s", "-i", str(image), *files, "::/"])
        return image.read_bytes()


@functools.cache
def _wholes() -> list[bytes]:
    """Return disks with an ESP, an erofs and an ext4, all of them small: one of our layout, and one of somebody's."""
    types = {name: kind for kind, name in TYPES.items()}
    parts, disks = (_esp(), _erofs_images()[0], _ext_images()[0]), []
    for labels in (("ESP", "nix-store", "root"), ("boot", "data", "system")):
        disk, entries, at = bytearray(4 << 20), b"", 64
        for number, (part, label) in enumerate(zip(parts, labels, strict=True)):
            sectors = -(-len(part) // 512)
            disk[at * 512 : at * 512 + len(part)] = part
            entries += entry(LINUX if number else types[_ESP], at, at + sectors - 1, label)
            at += sectors
        seal(disk, entries)
        disks.append(bytes(disk))
    return disks


IMAGES = {
    "volumes": Parser(call=_volumes, good=_discs),
    "erofs files": Parser(call=_erofs, good=_erofs_images, may=(FilesError,)),
    "FAT files": Parser(call=_fat, good=_fat_images, may=(FilesError,)),
    "ext4 walk": Parser(call=_ext, good=_ext_images, may=(FilesError,)),
    "ways to boot": Parser(call=_boot, good=_ways),
    "menus": Parser(call=_menus, good=lambda: [_ENTRY, _GRUB, _SYSLINUX, _LIMINE]),
    "bills": Parser(call=_bills, good=lambda: _PACKAGES),
    "members of an initrd": Parser(call=_members, good=_initrd, may=(initramfs.InitramfsError, FilesError)),
    "ends": Parser(call=_ends, good=_qemus),
    "QEMU's formats": Parser(call=_open, good=_qemus, slow=True),
    "zip": Parser(call=_open, good=_zips, slow=True),
    "whole images": Parser(call=_whole, good=_wholes, slow=True),
}
"""By what they read."""
