"""The boot sector of a FAT: Microsoft's specification of 2000, which UEFI 2.10 (section 13.3) refers to."""

import struct
from dataclasses import dataclass

from vmtests.image.check import Readable

_FAT16_CLUSTERS = 4085
_FAT32_CLUSTERS = 65525
_FIXED_MEDIA = 0xF8
_NO_MIRROR = 0x80
_DIRECTORY = 2 << 20  # bytes of a directory, at most (section 6.2)
_DELETED, _LABEL, _LONG = 0xE5, 0x08, 0x0F


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSector:
    """The fields of a FAT boot sector that say how large everything is."""

    sector_size: int
    cluster_sectors: int
    reserved: int
    fats: int
    root_entries: int
    sectors: int
    fat_sectors: int
    fat32_layout: bool
    media: int
    flags: int
    version: int
    root_cluster: int

    @property
    def size(self) -> int:
        """The size of the file system in bytes."""
        return self.sectors * self.sector_size

    @property
    def clusters(self) -> int:
        """The number of clusters, which alone decides the FAT type."""
        return max(0, self.sectors - self._before_clusters) // self.cluster_sectors

    @property
    def size_before_clusters(self) -> int:
        """The bytes before cluster 2, which is the first."""
        return self._before_clusters * self.sector_size

    @property
    def _before_clusters(self) -> int:
        root = -(-self.root_entries * 32 // self.sector_size)
        return self.reserved + self.fats * self.fat_sectors + root

    @property
    def type(self) -> str:
        """FAT12, FAT16 or FAT32, by the number of clusters."""
        if self.clusters < _FAT16_CLUSTERS:
            return "FAT12"
        return "FAT16" if self.clusters < _FAT32_CLUSTERS else "FAT32"

    @property
    def unread(self) -> str:
        """Why EDK2 does not mount it, nothing where it does (FatPkg/EnhancedFatDxe/Init.c, FatOpenDevice())."""
        if self.media < _FIXED_MEDIA and self.media not in (0x00, 0x01, 0xF0):
            return f"its boot sector has the media type {self.media:#04x}, and not 0xf8"
        if self.fat32_layout and self.version:
            return f"it is FAT32 of version {self.version >> 8}.{self.version & 0xFF}, and not 0.0"
        if self.fat32_layout and self.flags & _NO_MIRROR:
            return "its second FAT is no copy of the first (mirroring is switched off)"
        if self.fat32_layout and self.type != "FAT32":
            return f"as FAT32 it has {self.clusters} clusters only, and needs {_FAT32_CLUSTERS}"
        if not self.fat32_layout and self.type == "FAT32":
            return f"as FAT16 it has {self.clusters} clusters, and may have {_FAT32_CLUSTERS - 1}"
        return ""


def label(content: Readable, sector: BootSector) -> bytes:
    """Return the label in the root directory, which udev and GRUB go by; nothing where there is none.

    Of that directory so much is looked at as it may have in all, cluster by cluster.
    """
    unit, first = sector.cluster_sectors * sector.sector_size, sector.reserved * sector.sector_size
    size, cluster, at = sector.root_entries * 32, 0, 0
    if sector.fat32_layout:
        size, cluster = _DIRECTORY, max(sector.root_cluster, 2)
    while at < size:
        step, start = size, first + sector.fats * sector.fat_sectors * sector.sector_size
        if cluster:
            step, start = min(unit, size - at), sector.size_before_clusters + (cluster - 2) * unit
        data = content.read(start, step)
        for place in range(0, len(data), 32):
            raw = data[place : place + 32]
            if raw[:1] in (b"\0", b""):
                return b""
            if raw[0] != _DELETED and len(raw) == 32 and raw[11] & 0x18 == _LABEL and raw[11] & 0x3F != _LONG:
                return raw[:11]
        at += step
        cluster = int.from_bytes(content.read(first + cluster * 4, 4), "little") & 0x0FFFFFFF if cluster else 0
        if len(data) < step or not 2 <= cluster <= sector.clusters + 1:
            break
    return b""


def parse(sector: bytes) -> BootSector | None:
    """Return the boot sector; None where it is none."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return None
    # Firmware does not look at the jump; a name tells a FAT as well (libblkid's superblocks/vfat.c).
    named = sector[82:90] == b"FAT32   " or sector[54:62] in (b"FAT12   ", b"FAT16   ")
    if sector[0] not in (0xEB, 0xE9) and not named:
        return None
    size, cluster, reserved, fats, root, total16, media, fat16 = struct.unpack_from("<HBHBHHBH", sector, 11)
    total32, fat32, flags, version, root_cluster = struct.unpack_from("<IIHHI", sector, 32)
    if size == 0 or cluster == 0 or cluster & (cluster - 1) or fats == 0 or not (total16 or total32):
        return None
    return BootSector(
        sector_size=size,
        cluster_sectors=cluster,
        reserved=reserved,
        fats=fats,
        root_entries=root,
        sectors=total16 or total32,
        fat_sectors=fat16 or fat32,
        fat32_layout=fat16 == 0,
        media=media,
        flags=flags,
        version=version,
        root_cluster=root_cluster,
    )
