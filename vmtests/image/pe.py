"""EFI programs, kernels and initrds, told by their first bytes.

PE/COFF by Microsoft's specification as UEFI 2.10 uses it (section 2.1.1); kernels by the Linux x86 boot
protocol (Documentation/arch/x86/boot.rst).
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vmtests.host.architecture import GUEST

HEAD = 0x10000
"""Bytes from the beginning of a program that `parse` and `parse_kernel` want to see."""

EFI_APPLICATION = 10
_PE32_PLUS = 0x20B

INITRD_MAGICS: Mapping[bytes, str] = {
    b"070701": "cpio",
    b"070702": "cpio",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"\x02\x21\x4c\x18": "lz4",
    b"BZh": "bzip2",
    b"\x89LZO": "lzo",
    b"\x5d\0\0": "lzma",
}
"""First bytes of initrds that Linux unpacks (lib/decompress.c, init/initramfs.c); lz4 is the old frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a program: where it is in the file, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The headers of a PE32+ program; of a unified kernel image with profiles, the sections of the first one."""

    machine: int
    subsystem: int
    sections: Mapping[str, Section]
    end: int
    """Bytes that its file has at least: the end of its last section."""

    @property
    def is_uki(self) -> bool:
        """Whether it is a unified kernel image: a kernel is inside (UAPI specification, UKI)."""
        return ".linux" in self.sections

    @property
    def refers(self) -> bool:
        """Whether kernel and initrd are not inside: the sections have their paths, as Lanzaboote's stub wants it."""
        return ".linuxh" in self.sections and self.is_uki


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A bzImage: the version of the boot protocol, and what the kernel says of itself."""

    protocol: tuple[int, int]
    release: str

    @property
    def version(self) -> tuple[int, int] | None:
        """Major and minor version; None where the release does not begin with them."""
        match = re.match(r"(\d{1,4})\.(\d{1,4})", self.release)
        return (int(match[1]), int(match[2])) if match else None


def parse(head: bytes) -> Program | str:
    """Return the headers of the program that begins with `head`, or what is wrong with it."""
    if head[:2] != b"MZ":
        return f"it begins with {ascii(head[:12])[1:] if head else 'nothing'}, not with MZ"
    if len(head) < 0x40:
        return "it ends within its header"
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[start : start + 4] != b"PE\0\0":
        return "it has no PE header"
    if len(head) < start + 24 + 70:
        return "it ends within its header"
    machine, count, _, _, _, optional, _ = struct.unpack_from("<HHIIIHH", head, start + 4)
    (magic,) = struct.unpack_from("<H", head, start + 24)
    if magic != _PE32_PLUS:
        return f"its optional header has magic {magic:03x}, not {_PE32_PLUS:03x} (PE32+)"
    (subsystem,) = struct.unpack_from("<H", head, start + 24 + 68)
    sections: dict[str, Section] = {}
    profile: dict[str, Section] = {}
    profiles, end = 0, 1
    for index in range(count):
        place = start + 24 + optional + 40 * index
        if place + 40 > len(head):
            break
        name, virtual, _, raw, offset = struct.unpack_from("<8sIIII", head, place)
        text = name.rstrip(b"\0").decode("ascii", errors="replace")
        profiles += text == ".profile"
        if profiles < 2:  # the first profile is started: its sections take the place of those that all have
            (profile if profiles else sections).setdefault(text, Section(offset=offset, size=min(virtual, raw)))
        end = max(end, offset + raw if raw else 0)
    return Program(machine=machine, subsystem=subsystem, sections=sections | profile, end=end)


def text(section: bytes) -> str:
    """Return what a section of text says."""
    return section.rstrip(b"\0").decode("utf-8", errors="replace").replace("\0", " ").strip()


def fault(program: Program | str) -> str | None:
    """Return why the firmware of a machine would not start a program; None where it would."""
    if isinstance(program, str):
        return program
    if program.machine != GUEST.pe_machine:
        return f"it is for machine {program.machine:04x}, not {GUEST.pe_machine:04x} ({GUEST.shown})"
    if program.subsystem != EFI_APPLICATION:
        return f"its subsystem is {program.subsystem}, not {EFI_APPLICATION} (EFI application)"
    return None


def parse_kernel(head: bytes) -> Kernel | None:
    """Return the kernel that begins with `head`; None where it is no bzImage."""
    if head[0x202:0x206] != b"HdrS" or len(head) < 0x210:
        return None
    minor, major = head[0x206], head[0x207]
    (place,) = struct.unpack_from("<H", head, 0x20E)
    text = head[place + 0x200 :][:256].split(b"\0", 1)[0] if place else b""
    return Kernel(protocol=(major, minor), release=text.decode("ascii", errors="replace").split(" ", 1)[0])


def kernel_size(head: bytes) -> int:
    """Return how many bytes the kernel that begins with `head` has at least; 0 where it does not say."""
    program = parse(head)
    size = 0 if isinstance(program, str) else program.end
    if parse_kernel(head) is not None:
        # Sectors of the setup code, and paragraphs of the rest (boot.rst: setup_sects, syssize), rounded up.
        (paragraphs,) = struct.unpack_from("<I", head, 0x1F4)
        size = max(size, ((head[0x1F1] or 4) + 1) * 512 + paragraphs * 16 - 16 if paragraphs else 0)
    return size


def initrd_format(head: bytes) -> str | None:
    """Return the format of the initrd that begins with `head`; None where Linux does not know it."""
    return next((name for magic, name in INITRD_MAGICS.items() if head.startswith(magic)), None)


def no_initrd(head: bytes, name: str) -> str:
    """Say what an initrd is whose first bytes, `head`, are in no format that Linux unpacks."""
    if not head:
        return f"initrd {name} is empty"
    return f"initrd {name} is in no format that Linux unpacks: it begins with {head[:6].hex()}"
