"""A machine's hardware, as one would order it."""

import base64
import re
import string
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

from vmtests.errors import InputError

_IDENTITY = uuid.UUID("76d7e575-0000-4000-8000-000000000001")
_MOST_CPUS = 255  # that an APIC can name; more need an IOMMU, which the machine has not
_NAME_LIMIT = 255  # systemd's credential_name_valid: a name is a file name
_NAME_BAD = frozenset(string.whitespace + "/:=,")
_FW_CFG_LIMIT = 55  # QEMU's FW_CFG_MAX_FILE_PATH, with the byte that ends it
_DISKS = 8  # further ones: slots on the bus that nothing else is in


class Net(StrEnum):
    """What the guest's network card is connected to; ssh from the host works with all but `NONE`."""

    NONE = "none"
    ISOLATED = "isolated"
    """Nothing but the host's ssh: a guest on a host in a cloud must not find that host's metadata."""
    USER = "user"
    """The host's network, through QEMU's user-mode stack."""


class FirmwareKind(StrEnum):
    """The firmware that starts the image."""

    UEFI = "uefi"
    """EDK2's OVMF."""
    BIOS = "bios"
    """SeaBIOS, which starts the code in the disk's first sector."""


class DiskBus(StrEnum):
    """How the guest sees its disks, and which driver its initrd needs."""

    VIRTIO_SCSI = "virtio-scsi"
    """/dev/sda, by virtio_scsi and sd_mod, as on Compute Engine's older machine types."""
    VIRTIO_BLK = "virtio-blk"
    """/dev/vda, by virtio_blk."""
    NVME = "nvme"
    """/dev/nvme0n1, as on Compute Engine's newer machine types."""
    SATA = "sata"
    """/dev/sda, by ahci and sd_mod."""
    CDROM = "cdrom"
    """The image is a disc in a SATA drive, /dev/sr0, which cannot be written to; further disks are SATA's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A further disk: an image that is never written to, an empty one of `size` bytes, or a larger one than its image.

    Raises InputError when it is neither.
    """

    image: Path | None = None
    """A raw or qcow2 file."""
    size: int | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        if self.image is None and not self.size:
            raise InputError("a further disk has an image, or a size")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFaults:
    """How a machine's disk is broken, by QEMU's blkdebug and throttle drivers (docs/devel/testing/blkdebug.rst)."""

    bad_sector: int | None = None
    """A sector of 512 bytes that cannot be read."""
    full: bool = False
    """Whether every write finds the host's disk full, upon which QEMU stops the guest."""
    bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A machine as one would order it. Raises InputError when it cannot be built."""

    memory_mib: int = 1024
    cpus: int = 2
    firmware: FirmwareKind | None = None
    """None is BIOS where the image has a boot loader for that only, else UEFI."""
    disk_bus: DiskBus | None = None
    """None is a drive for a CD-ROM image, what `root=/dev/vda1` or `/dev/nvme0n1p1` asks for, else virtio-scsi."""
    sector_size: int | None = None
    """Bytes in a sector of its disks, 512 or 4096; None is that of the image's GPT."""
    disk_size: int | None = None
    """Bytes; None leaves the image's own size."""
    disks: tuple[Disk, ...] = ()
    """Further disks, on the same bus; nothing is booted from them."""
    cdrom: Path | None = None
    """A disc in a SATA drive, from which the machine boots where it does not from its disk."""
    kernel: Path | None = None
    """A kernel that is started instead of the image's boot loader, with `initrd` and the command line `append`."""
    initrd: Path | None = None
    append: str = ""
    secure_boot: bool = False
    """Whether its firmware starts what is signed only: with Microsoft's keys, or those in `firmware_vars`."""
    firmware_vars: Path | None = None
    """The firmware's variables that it begins with, in the place of OVMF's own: with one's own keys, say, as
    virt-fw-vars enrolls them. Raw, and as large as those of the OVMF that is found.
    """
    tpm: bool = False
    net: Net = Net.ISOLATED
    hostname: str = "vm-1"
    domain: str = "us-central1-a.c.p.internal"
    address: str = "10.128.0.2"
    """What the guest gets by DHCP, in 10.128.0.0/20; its hardware address is made of it."""
    identity: uuid.UUID = _IDENTITY
    """SMBIOS system UUID; serial numbers are made of it."""
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    """systemd credentials by name (systemd.system-credentials(7)), handed in through SMBIOS type 11."""
    seed: Mapping[str, bytes] = field(default_factory=dict)
    """Files of a further disk labelled CIDATA, where cloud-init's NoCloud looks for `user-data` and `meta-data`."""
    fw_cfg: Mapping[str, bytes] = field(default_factory=dict)
    """Files of QEMU's firmware configuration device (docs/specs/fw_cfg.rst): `opt/com.coreos/config` is Ignition's."""
    agent: bool | None = None
    """Whether it has the virtio port of QEMU's guest agent; None is where the image has one."""
    disk_faults: DiskFaults = DiskFaults()
    cmdline_extra: str = ""
    """Appended to the kernel's command line by systemd-boot (≥ 256) or systemd-stub (≥ 254), and to `append`."""
    qemu_args: tuple[str, ...] = ()
    """QEMU's own arguments, behind all of ours (qemu(1)): another device, say. What is wrong in them QEMU says."""

    def __post_init__(self) -> None:
        _check_types(self)
        if self.memory_mib < 32 or self.cpus < 1:
            raise InputError(
                f"a machine with {self.memory_mib} MiB and {self.cpus} CPUs cannot boot",
                hint="32 MiB and one CPU are the least",
            )
        if self.cpus > _MOST_CPUS:
            raise InputError(f"a machine with {self.cpus} CPUs cannot boot", hint=f"{_MOST_CPUS} are the most")
        for name in self.credentials:
            if not 0 < len(name) <= _NAME_LIMIT or _NAME_BAD & set(name) or name in {".", ".."}:
                raise InputError(f"{name!r} is not the name of a credential", hint="systemd.exec(5) says what is")
        for name in self.fw_cfg:
            if not name.startswith("opt/") or len(name.encode()) > _FW_CFG_LIMIT or not name.isprintable():
                raise InputError(f"{name!r} is no file that fw_cfg takes", hint="a name like opt/org.example/x")
        for name, text in (("cmdline_extra", self.cmdline_extra), ("append", self.append)):
            if "\0" in text or "\n" in text:
                raise InputError(f"{name} goes on the kernel's command line, which has to be one line")
        if self.sector_size not in (None, 512, 4096):
            raise InputError(f"disks have sectors of 512 or 4096 bytes, not {self.sector_size}")
        if self.secure_boot and self.firmware is FirmwareKind.BIOS:
            raise InputError("a BIOS knows no secure boot", hint="leave one of the two out")
        if self.firmware_vars is not None and self.firmware is FirmwareKind.BIOS:
            raise InputError("a BIOS has no variables", hint="leave one of the two out")
        if self.kernel is None and (self.initrd is not None or self.append):
            raise InputError(
                "an initrd or a command line without a kernel is for nobody",
                hint="name the kernel too; cmdline_extra is added to the image's own command line",
            )
        if len(self.disks) > _DISKS:
            raise InputError(f"a machine has {_DISKS} further disks at most, not {len(self.disks)}")

    @property
    def further(self) -> int:
        """How many disks it has besides the image's: further ones, and the seed's."""
        return len(self.disks) + bool(self.seed)

    @property
    def files(self) -> Iterator[Path]:
        """The host's files that the machine reads, besides its image."""
        known = (self.kernel, self.initrd, self.cdrom, self.firmware_vars)
        yield from filter(None, (*known, *(disk.image for disk in self.disks)))

    def need_files(self) -> None:
        """Raise InputError for a file that is not there."""
        for path in self.files:
            if not path.is_file() and not path.is_block_device():
                raise InputError(f"{path} is not there, or no file", hint="the machine is to be given it")


def _check_types(ordered: Disk | Hardware) -> None:
    """Raise InputError for what is of another type than its field.

    A word equals a member of an enumeration and is none: `net="isolated"` would be a network that is open.
    """
    for known in fields(ordered):
        value, parts = getattr(ordered, known.name), get_args(known.type)
        kind: Any = known.type
        if (origin := get_origin(kind)) is tuple:
            good = isinstance(value, list | tuple) and all(isinstance(one, parts[0]) for one in value)
        elif origin is Mapping:
            good = isinstance(value, Mapping) and all(
                isinstance(name, parts[0]) and isinstance(content, parts[1]) for name, content in value.items()
            )
        else:
            good = isinstance(value, kind)
        if not good:
            shown = kind.__name__ if isinstance(kind, type) else re.sub(r"[a-z_.]+\.(?=[A-Z])", "", str(kind))
            given = type(value).__name__  # its value may be a secret
            raise InputError(f"{type(ordered).__name__}({known.name}=…) takes {shown}, and was given a {given}")


def oem_strings(hardware: Hardware) -> list[bytes]:
    """Return the SMBIOS type 11 strings that carry credentials, in base64, which any value survives."""
    return [
        f"io.systemd.credential.binary:{name}=".encode() + base64.b64encode(value)
        for name, value in hardware.credentials.items()
    ]
