"""Names the file system of a partition, or what else is on it, by its superblock.

Own probes, since what is asked for is a name, a UUID, a label and a size out of hostile bytes: some short reads, no
pointer that is followed, and none of the 40 ms that a process costs for each partition. Names are those of blkid(8).
Places are those of each file system's header in Linux 6.12, unless said otherwise.
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from vmtests.image import erofs, ext4, fat
from vmtests.image.check import Readable

CONTAINERS = frozenset({
    "crypto_LUKS", "LVM2_member", "linux_raid_member", "BitLocker", "zfs_member", "bcachefs", "bcache", "stratis",
    "vdo", "drbd", "ddf_raid_member", "isw_raid_member", "DM_integrity",
})  # fmt: skip
"""What hides other file systems, whose names, labels and UUIDs are not seen from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """A file system: `size` is in bytes, None where the superblock does not say; `uuid` is spelled as udev does."""

    type: str
    uuid: str = ""
    label: str = ""
    size: int | None = None
    inner: "FileSystem | None" = None
    """What begins at the same byte: an array, or a mirror, that has its own data at its end hides nothing."""


_Probe = Callable[[Readable], FileSystem | None]


def probe(content: Readable) -> FileSystem | None:
    """Return what `content` holds; None where nothing is known that begins like this."""
    for one in _PROBES:
        if (found := one(content)) is not None:
            return found
    return None


def _text(data: bytes, coding: str = "utf-8") -> str:
    return data.decode(coding, errors="replace").split("\0", 1)[0].rstrip()


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data)) if len(data) == 16 and any(data) else ""


def _luks(content: Readable) -> FileSystem | None:
    head = content.read(0, 512)  # cryptsetup's on-disk format, LUKS1 and LUKS2
    if head[:6] != b"LUKS\xba\xbe" or len(head) < 512:
        return None
    label = _text(head[24:72]) if head[6:8] == b"\0\2" else ""
    return FileSystem(type="crypto_LUKS", uuid=_text(head[168:208]), label=label)


def _lvm(content: Readable) -> FileSystem | None:
    for sector in range(4):  # lib/format_text/layout.h of LVM2
        head = content.read(sector * 512, 64)
        if head[:8] == b"LABELONE" and head[24:32] == b"LVM2 001":
            return FileSystem(type="LVM2_member", uuid=_text(head[32:64]))
    return None


def _raid(content: Readable) -> FileSystem | None:
    magic = b"\xfc\x4e\x2b\xa9"  # include/uapi/linux/raid/md_p.h
    end = (content.size // 512 - 16) // 8 * 8 * 512
    for place in (0, 4096, end):
        if place >= 0 and (head := content.read(place, 64))[:4] == magic and head[4:8] == b"\1\0\0\0":
            inner = _plain(content) if place == end else None
            label = _text(head[32:64])
            return FileSystem(type="linux_raid_member", uuid=_uuid(head[16:32]), label=label, inner=inner)
    if content.size >= 1 << 17 and content.read((content.size & ~0xFFFF) - 0x10000, 4) == magic:
        return FileSystem(type="linux_raid_member", inner=_plain(content))
    return None


def _at_end(content: Readable) -> FileSystem | None:
    for end, at, magics, name in _ENDS:
        place = content.size // 512 * 512 - end
        if place >= 0 and content.read(place + at, len(magics[0])) in magics:
            return FileSystem(type=name, inner=_plain(content))
    return None


def _plain(content: Readable) -> FileSystem | None:
    return next((found for one in (_ext, _xfs, _btrfs, _f2fs, _vfat) if (found := one(content)) is not None), None)


def _ext(content: Readable) -> FileSystem | None:
    found = ext4.parse(content.read(ext4.OFFSET, ext4.SIZE))
    if found is None or found.magic != ext4.MAGIC:
        return None
    # As libblkid tells them apart: by features that an older driver does not know.
    newer = found.incompat & ~0x16 or found.ro_compat & ~0x7
    kind = "ext4" if newer else "ext3" if found.compat & 0x4 else "ext2"
    return FileSystem(type=kind, uuid=str(found.uuid), label=found.label, size=found.size)


def _erofs(content: Readable) -> FileSystem | None:
    found = erofs.parse(content.read(erofs.OFFSET, 256))
    if found is None or found.magic != erofs.MAGIC:
        return None
    identifier = str(found.uuid) if found.uuid.int else ""
    return FileSystem(type="erofs", uuid=identifier, label=found.volume_name, size=found.size)


def _xfs(content: Readable) -> FileSystem | None:
    head = content.read(0, 128)
    if head[:4] != b"XFSB" or len(head) < 128:
        return None
    block, count = struct.unpack_from(">IQ", head, 4)
    return FileSystem(type="xfs", uuid=_uuid(head[32:48]), label=_text(head[108:120]), size=block * count)


def _btrfs(content: Readable) -> FileSystem | None:
    head = content.read(0x10000, 0x400)
    if head[0x40:0x48] != b"_BHRfS_M" or len(head) < 0x400:
        return None
    (size,) = struct.unpack_from("<Q", head, 0xC9 + 8)  # the device's own, in its dev_item
    return FileSystem(type="btrfs", uuid=_uuid(head[0x20:0x30]), label=_text(head[0x12B:0x22B]), size=size)


def _f2fs(content: Readable) -> FileSystem | None:
    head = content.read(1024, 1152)
    if head[:4] != b"\x10\x20\xf5\xf2" or len(head) < 1152:
        return None
    (bits,) = struct.unpack_from("<I", head, 16)
    (blocks,) = struct.unpack_from("<Q", head, 36)
    label = _text(head[124:1148], "utf-16-le")
    return FileSystem(type="f2fs", uuid=_uuid(head[108:124]), label=label, size=blocks << min(bits, 16))


def _squashfs(content: Readable) -> FileSystem | None:
    head = content.read(0, 96)
    if head[:4] != b"hsqs" or len(head) < 96 or head[28:30] != b"\4\0":
        return None
    return FileSystem(type="squashfs", size=struct.unpack_from("<Q", head, 40)[0])


def _vfat(content: Readable) -> FileSystem | None:
    head = content.read(0, 512)
    sector = fat.parse(head)
    if sector is None:
        return None
    at = 67 if sector.fat32_layout else 39
    number, label = head[at : at + 4], _text(fat.label(content, sector) or head[at + 4 : at + 15], "latin-1")
    identifier = f"{int.from_bytes(number[2:], 'little'):04X}-{int.from_bytes(number[:2], 'little'):04X}"
    return FileSystem(type="vfat", uuid=identifier, label="" if label == "NO NAME" else label, size=sector.size)


def _swap(content: Readable) -> FileSystem | None:
    if content.read(4086, 10) not in (b"SWAPSPACE2", b"SWAP-SPACE"):
        return None
    head = content.read(1024, 44)
    return FileSystem(type="swap", uuid=_uuid(head[12:28]), label=_text(head[28:44]))


def _iso(content: Readable) -> FileSystem | None:
    head = content.read(0x8000, 1024)  # ECMA-119, 8.4
    if head[1:6] != b"CD001" or len(head) < 1024:
        return None
    date = head[830:846] if head[830:846].strip(b"0\0") else head[813:829]
    text = _text(date, "ascii")
    parts = (text[:4], *(text[at : at + 2] for at in range(4, 16, 2)))
    (blocks,) = struct.unpack_from("<I", head, 80)
    size = blocks * 2048
    return FileSystem(type="iso9660", uuid="-".join(parts), label=_text(head[40:72], "latin-1"), size=size)


def _verity(content: Readable) -> FileSystem | None:
    head = content.read(0, 64)  # cryptsetup's lib/verity/verity.c
    return FileSystem(type="DM_verity_hash", uuid=_uuid(head[16:32])) if head[:8] == b"verity\0\0" else None


def _zfs(content: Readable) -> FileSystem | None:
    for place in range(0x20000, 0x40000, 0x400):  # uberblocks of the first label (module/zfs/vdev_label.c)
        if content.read(place, 8) in (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"):
            return FileSystem(type="zfs_member")
    return None


_BCACHEFS = uuid.UUID("c68573f6-66ce-90a9-d96a-60cf803df7ef").bytes
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (0, b"integrt\0", "DM_integrity"),
    (0x1018, _BCACHEFS, "bcachefs"),
    (0x1018, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
    (0x204, b"!Stra0tis\x86\xff\x02^\x41rh", "stratis"),
    (0, b"dmvdo001", "vdo"),
    (0x8000, b"JFS1", "jfs"),
    (0x10034, b"ReIsEr", "reiserfs"),
    (0x406, b"\x34\x34", "nilfs2"),
    (0x400, b"H+\0\4", "hfsplus"),
    (0x400, b"HX\0\5", "hfsplus"),
    (0x20, b"NXSB", "apfs"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0, b"-rom1fs-", "romfs"),
    (0x2000, b"OCFSV2", "ocfs2"),
    (0x10000, b"\x01\x16\x19\x70", "gfs2"),
    (0x8001, b"BEA01", "udf"),
)
_ENDS: tuple[tuple[int, int, tuple[bytes, ...], str], ...] = (
    (4096, 60, (b"\x83\x74\x02\x6b", b"\x83\x74\x02\x6c", b"\x83\x74\x02\x6d"), "drbd"),
    (512, 0, (b"\xde\x11\xde\x11", b"\x11\xde\x11\xde"), "ddf_raid_member"),
    (1024, 0, (b"Intel Raid ISM Cfg Sig. ",), "isw_raid_member"),
)
"""By how many bytes before the end and after that (libblkid's superblocks/{drbd,ddf_raid,isw_raid}.c)."""

UNNAMED = frozenset({*(name for _, _, name in _MAGICS), *(name for *_, name in _ENDS), "zfs_member"})
"""Types of which no UUID and no label is read here, though udev may know them, or those of what is inside."""


def _magic(content: Readable) -> FileSystem | None:
    for place, magic, name in _MAGICS:
        if content.read(place, len(magic)) == magic:
            return FileSystem(type=name)
    return None


# What hides others comes first: a LUKS header may lie over an older superblock. FAT comes late, since any boot
# sector looks a little like its own.
_PROBES: tuple[_Probe, ...] = (
    _luks, _lvm, _raid, _at_end, _verity, _iso, _ext, _xfs, _btrfs, _f2fs, _erofs, _squashfs, _swap, _magic, _vfat,
    _zfs,
)  # fmt: skip
