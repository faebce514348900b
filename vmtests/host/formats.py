"""What an image file is: a disk in some format, or something that a disk is packed into.

The name has the first word, since whoever named the file is to be believed more than what is in it: the guest of a
raw disk can write the magic of any format into its first sector, and a program that looks only there would follow
the "backing file" that the guest has named (CVE-2007-2721 of QEMU, and many like it). Without a name that says it, a
partition table says that a disk is raw; only then the magics are looked at.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HEAD = 4096
"""Bytes from the beginning of a file, and from its end, that are looked at."""

_SECTOR = 512


class Format(StrEnum):
    """The formats of a disk that are read; `ARCHIVE` is the packed raw disk that Compute Engine imports."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    QCOW = "qcow"
    QED = "qed"
    PARALLELS = "parallels"
    ARCHIVE = "tar.gz"


DRIVERS: Mapping[Format, str] = {
    Format.QCOW2: "qcow2",
    Format.VMDK: "vmdk",
    Format.VHD: "vpc",
    Format.VHDX: "vhdx",
    Format.VDI: "vdi",
    Format.QCOW: "qcow",
    Format.QED: "qed",
    Format.PARALLELS: "parallels",
}
"""The formats that are read through QEMU, and what QEMU calls them."""


class Packing(StrEnum):
    """What a disk is packed into: a compressed stream, or an archive."""

    GZIP = "gz"
    XZ = "xz"
    ZSTD = "zst"
    BZIP2 = "bz2"
    TAR = "tar"
    ZIP = "zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What is no image of a disk; `name` goes into "it is …"."""

    name: str
    hint: str = "vmtests takes a whole disk: .raw, .qcow2, .vmdk, .vhd, .vhdx, .vdi, packed or not"


Kind = Format | Packing | Other

_PACKINGS: Mapping[bytes, Packing] = {
    b"\x1f\x8b": Packing.GZIP,
    b"\xfd7zXZ\0": Packing.XZ,
    b"\x28\xb5\x2f\xfd": Packing.ZSTD,
    b"BZh": Packing.BZIP2,
    b"PK\x03\x04": Packing.ZIP,
    b"PK\x05\x06": Packing.ZIP,
}
_SKIPPABLE_ZSTD = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)  # RFC 8878, 3.1.2; pzstd begins with one
_DISKS: Mapping[bytes, Format] = {
    b"QFI\xfb\0\0\0\1": Format.QCOW,
    b"QFI\xfb": Format.QCOW2,
    b"KDMV": Format.VMDK,
    b"# Disk DescriptorFile": Format.VMDK,
    b"vhdxfile": Format.VHDX,
    b"conectix": Format.VHD,
    b"QED\0": Format.QED,
    b"WithoutFreeSpace": Format.PARALLELS,
    b"WithouFreSpacExt": Format.PARALLELS,
}
_VDI_MAGIC = b"\x7f\x10\xda\xbe"  # at 0x40, behind a text that anybody may change
_SPLIT_HINT = "cat its parts together, in their order, and give the whole"
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?P<page><(?:!doctype\s+html|html|head))|[{\[]\s*\")", re.IGNORECASE)
_PAGE = Other(name="a web page", hint="the download gave a page in the place of the image")
_JSON = Other(name="a text in JSON", hint="the download gave an answer in the place of the image")
KERNEL = Other(name="a Linux kernel", hint="give the disk that it is on; --kernel FILE starts it on a disk")
_PROGRAM = Other(name="an EFI program, as a unified kernel image is", hint="give the disk whose ESP it is on")
_FIRMWARE = Other(name="a machine's firmware, or its variables", hint="give a disk; --firmware-vars takes variables")
_ENCRYPTED = Other(name="encrypted", hint="decrypt it, and give the disk")
_OTHERS: Mapping[bytes, Other] = {
    b"age-encryption.org": _ENCRYPTED,
    b"Salted__": _ENCRYPTED,  # openssl enc
    b"LUKS\xba\xbe": Other(
        name="encrypted with LUKS as a whole", hint="give a disk whose partition table can be read"
    ),
    b"COWD": Other(name="a VMDK of ESX's old sparse kind", hint="vmkfstools or qemu-img convert makes another kind"),
    b"7z\xbc\xaf\x27\x1c": Other(name="a 7z archive", hint="7z x, and give the image inside"),
    b"Rar!": Other(name="a RAR archive", hint="unpack it and give the image inside"),
    b"MSCF": Other(name="a CAB archive", hint="unpack it and give the image inside"),
    b"\x02\x21\x4c\x18": Other(name="compressed with lz4", hint="lz4 -d, and give the disk"),
    b"\x04\x22\x4d\x18": Other(name="compressed with lz4", hint="lz4 -d, and give the disk"),
    b"\x89LZO": Other(name="compressed with lzop", hint="lzop -d, and give the disk"),
    b"LZIP": Other(name="compressed with lzip", hint="lzip -d, and give the disk"),
    b"\x5d\0\0": Other(name="compressed with lzma", hint="xz -d --format=lzma, and give the disk"),
    b"\x3a\xff\x26\xed": Other(name="an Android sparse image", hint="simg2img, and give the raw disk"),
    b"MSWIM\0\0\0": Other(name="a WIM archive", hint="it holds files, no disk"),
    b"EVF\x09\x0d\x0a\xff\0": Other(name="an EnCase image", hint="ewfexport makes a raw disk"),
    b"!<arch>\ndebian": Other(name="a Debian package", hint="it holds files, no disk"),
    b"\xed\xab\xee\xdb": Other(name="an RPM package", hint="it holds files, no disk"),
    b"VMA\0": Other(name="a backup of Proxmox VE", hint="vma extract, and give its disk"),
    b"UBI#": Other(name="an image for raw flash (UBI)", hint="it is for another machine: give a disk"),
    b"\x1f\x9d": Other(name="compressed with compress", hint="gzip -d, and give the disk"),
    b"070702": Other(name="a cpio archive with checksums, as an update is", hint="give the disk that is in it"),
    b"070701": Other(name="a cpio archive, as an initrd is", hint="give the disk that the initrd is on"),
    b"\x7fELF": Other(name="a program"),
    b"#!": Other(name="a script"),
    b"-----BEGIN PGP": Other(name="signed or encrypted with PGP", hint="gpg --decrypt, and give the disk"),
    b"version https://git-lfs": Other(name="a pointer of git-lfs", hint="git lfs pull brings the image itself"),
    b"<?xml": Other(name="an XML file", hint="an .ovf or .xml only describes a machine: give its disk"),
    b"%PDF": Other(name="a PDF"),
    b"\xd0\x0d\xfe\xed": Other(name="a device tree, or an image for U-Boot", hint="give the disk that it is on"),
}
_RAW_NAMES = frozenset({"raw", "dd", "wic", "hddimg", "rootfs"})
_DISK_NAMES: Mapping[str, Format | None] = {
    **dict.fromkeys(_RAW_NAMES, Format.RAW),
    "qcow2": Format.QCOW2,
    "qcow": Format.QCOW,
    "qed": Format.QED,
    "hdd": Format.PARALLELS,
    "hds": Format.PARALLELS,
    "vmdk": Format.VMDK,
    "vhd": Format.VHD,
    "vpc": Format.VHD,
    "vhdx": Format.VHDX,
    "vdi": Format.VDI,
    "img": None,
    "bin": None,
    "disk": None,
    "image": None,
    "iso": None,
}
_PACKED_NAMES: Mapping[str, str] = {
    "gz": "gz", "gzip": "gz", "xz": "xz", "zst": "zst", "zstd": "zst", "bz2": "bz2", "tar": "tar", "zip": "zip",
    "tgz": "tar", "txz": "tar", "tzst": "tar", "tbz2": "tar", "ova": "tar", "box": "tar",
}  # fmt: skip
_ENCRYPTED_NAMES = frozenset({"age", "asc", "enc", "gpg", "pgp"})
_PART = re.compile(r"\.(?:\d{3}|part-?\w{1,4}|a[a-z]|z\d\d)$", re.IGNORECASE)


def identify(head: bytes, tail: bytes, name: str, *, device: bool = False) -> Kind:
    """Say what a file is, by its name and by its first and last bytes (at most HEAD each).

    A block device is raw whatever it begins with.
    """
    said = suffix(name)
    if device or said in _RAW_NAMES:
        return Format.RAW
    # A VHD of fixed size is a raw disk with a footer (Microsoft's VHD specification 1.0).
    if any(tail[-size:].startswith(b"conectix") for size in (512, 511)):
        return Format.VHD
    if has_table(head):
        return Format.RAW
    for magic, form in _DISKS.items():
        if head.startswith(magic):
            return form
    if head[0x40:0x44] == _VDI_MAGIC:
        return Format.VDI
    for start, packing in _PACKINGS.items():
        if head.startswith(start):
            return packing
    if _SKIPPABLE_ZSTD.match(head):
        return Packing.ZSTD
    if head[257:262] == b"ustar":
        return Packing.TAR
    if (other := _other(head)) is not None:
        return other
    if tail[-512:].startswith(b"koly"):
        return Other(name="an Apple disk image", hint="dmg2img, or qemu-img convert -f dmg -O raw")
    if _PART.search(name) and not has_signature(head):
        return Other(name="one part of something that was split", hint=_SPLIT_HINT)
    if said in _ENCRYPTED_NAMES and not has_signature(head):
        return _ENCRYPTED
    if said == "tar" and not head.strip(b"\0"):
        return Packing.TAR  # an archive of nothing is blocks of zeros
    return Format.RAW


def again(name: str) -> str:
    """Return what helps where the file of a name ends too early; `x.raw.gz.001` is one part of several."""
    if _PART.search(name):
        return f"it is one part of something that was split: {_SPLIT_HINT}"
    return "copy or download it again"


def _other(head: bytes) -> Other | None:
    """Return what no disk begins like `head`; None where it may be one."""
    if has_signature(head) and head[0x202:0x206] == b"HdrS":  # Documentation/arch/x86/boot.rst of Linux
        return KERNEL
    place = int.from_bytes(head[0x3C:0x40], "little")
    if head[:2] == b"MZ" and head[place : place + 4] == b"PE\0\0" and not has_signature(head):
        return _PROGRAM
    if head[0x28:0x2C] == b"_FVH":  # UEFI PI 1.8, volume 3, 2.2.1
        return _FIRMWARE
    if match := _TEXT.match(head):
        return _PAGE if match["page"] else _JSON
    return next((other for start, other in _OTHERS.items() if head.startswith(start)), None)


def disguised(head: bytes) -> Other | None:
    """Return what else a raw disk begins like (HEAD bytes are looked at); None where like nothing that is known."""
    for magics in (_DISKS, _PACKINGS):
        for magic, kind in magics.items():
            if head.startswith(magic):
                return Other(name=kind.value, hint="if it is one, give it a name that says so")
    return _other(head)


def has_signature(head: bytes) -> bool:
    """Return whether a boot sector's signature is at its place."""
    return head[510:512] == b"\x55\xaa"


def has_table(head: bytes) -> bool:
    """Return whether a disk begins with a boot sector and a GPT behind it, in sectors of 512 or 4096 bytes."""
    return has_signature(head) and (head[512:520] == b"EFI PART" or head[4096:4104] == b"EFI PART")


def suffix(name: str) -> str:
    """Return the last suffix of a file's name in lower case, without its dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def inner_name(name: str, packing: Packing) -> str:
    """Return the name of what is inside a compressed stream: `x.qcow2` of `x.qcow2.xz`."""
    last = suffix(name)
    if last in {"tgz", "txz", "tzst", "tbz2", "ova", "box"}:
        return f"{name.rpartition('.')[0]}.tar"
    return name.rpartition(".")[0] if _PACKED_NAMES.get(last) == packing.value else name


def looks_like_a_disk(name: str) -> bool:
    """Return whether the name of a file in an archive or directory is that of a disk, packed or not."""
    base = name.rpartition("/")[2]
    last = suffix(base)
    if last in _PACKED_NAMES and last not in {"tar", "zip"}:
        return looks_like_a_disk(base.rpartition(".")[0]) or last in {"tgz", "txz", "tzst", "ova", "box"}
    return last in _DISK_NAMES


def is_extent(name: str) -> bool:
    """Return whether a name is that of a piece of a split VMDK, which is read through its descriptor."""
    return re.search(r"-(?:s|f)\d{3}\.vmdk$|-(?:flat|delta|ctk)\.vmdk$", name, re.IGNORECASE) is not None


def said_format(path: Path) -> Format:
    """Return the format of a disk that was adopted: raw or qcow2."""
    with path.open("rb") as file:
        kind = identify(file.read(HEAD + 512), b"", path.name, device=stat.S_ISBLK(os.fstat(file.fileno()).st_mode))
    return Format.QCOW2 if kind is Format.QCOW2 else Format.RAW
