"""The hardware of a machine, and the QEMU command line that makes it.

The machine is as near to a Compute Engine instance as QEMU comes (Compute Engine's "Requirements for
building custom images", and what its instances show of themselves): a virtio-scsi disk "Google
PersistentDisk" with 4 KiB physical sectors, virtio-net in 10.128.0.0/20, two 16550A serial ports, an entropy
device, Google's SMBIOS strings.
"""

import base64
import string
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from vmtests.errors import InputError
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.architecture import GUEST
from vmtests.host.firmware import Firmware, FirmwareFile

FIRMWARE_DEBUG_PORT = 0x402
"""The I/O port on which OVMF writes its debug messages, when it was built to write any (OvmfPkg/README)."""

_IDENTITY = uuid.UUID("76d7e575-0000-4000-8000-000000000001")
_USUAL_SCALE = 4.0  # of TCG: only KVM that is slower than that has a larger one
_DEVICE_SECONDS = 90.0
_NAME_LIMIT = 255  # systemd's credential_name_valid: a name is a file name
_NAME_BAD = frozenset(string.whitespace + "/:=,")


class Net(StrEnum):
    """What the guest's network card is connected to; ssh from the host works with all but `NONE`."""

    NONE = "none"
    ISOLATED = "isolated"
    """Nothing but the host's ssh: a guest on a host in a cloud must not find that host's metadata."""
    USER = "user"
    """The host's network, through QEMU's user-mode stack."""


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
    disk_size: int | None = None
    """Bytes; None leaves the image's own size."""
    secure_boot: bool = False
    tpm: bool = False
    net: Net = Net.ISOLATED
    hostname: str = "vm-1"
    domain: str = "us-central1-a.c.p.internal"
    address: str = "10.128.0.2"
    """What the guest gets by DHCP, in 10.128.0.0/20; its hardware address is made of it."""
    nvme: bool = False
    """The disk is an NVMe namespace instead of a virtio-scsi disk, as with the newer machine types."""
    identity: uuid.UUID = _IDENTITY
    """SMBIOS system UUID; serial numbers are made of it."""
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    """systemd credentials by name (systemd.system-credentials(7)), handed in through SMBIOS type 11."""
    disk_faults: DiskFaults = DiskFaults()
    cmdline_extra: str = ""
    """Appended to the kernel's command line by systemd-boot (≥ 256) or systemd-stub (≥ 254)."""
    qemu_args: tuple[str, ...] = ()
    """QEMU's own arguments, behind all of ours (qemu(1)): another device, say. What is wrong in them QEMU says."""

    def __post_init__(self) -> None:
        if self.memory_mib < 32 or self.cpus < 1:
            raise InputError(
                f"a machine with {self.memory_mib} MiB and {self.cpus} CPUs cannot boot",
                hint="32 MiB and one CPU are the least",
            )
        for name in self.credentials:
            if not 0 < len(name) <= _NAME_LIMIT or _NAME_BAD & set(name) or name in {".", ".."}:
                raise InputError(f"{name!r} is not the name of a credential", hint="systemd.exec(5) says what is")
        if "\0" in self.cmdline_extra or "\n" in self.cmdline_extra:
            raise InputError("what is added to the kernel's command line has to be one line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a machine is put together of; sockets are the numbers of file descriptors that QEMU inherits."""

    accelerator: Accelerator
    firmware: Firmware
    variables: Path
    disk: Path
    """A qcow2 file."""
    credential_files: tuple[Path, ...]
    """Files with `oem_strings`, in their order."""
    qmp_fd: int
    serial_fds: tuple[int, int]
    serial_logs: tuple[Path, Path]
    firmware_fd: int
    ram: Path
    """The file that is the guest's memory."""
    template: bool = False
    """Whether the machine is a fork: `ram` is then a template's, shared by all and written by none, and the state of
    the devices comes in by QMP.
    """
    tpm_fd: int | None = None


def oem_strings(hardware: Hardware) -> list[bytes]:
    """Return the SMBIOS type 11 strings that carry credentials, in base64, which any value survives."""
    return [
        f"io.systemd.credential.binary:{name}=".encode() + base64.b64encode(value)
        for name, value in hardware.credentials.items()
    ]


def comma(value: str | Path) -> str:
    """Return `value` as part of a QEMU option: a comma is written twice (qemu(1))."""
    return str(value).replace(",", ",,")


def qemu_args(hardware: Hardware, parts: Parts) -> list[str]:
    """Return QEMU's arguments, without the program; the machine starts paused."""
    return [
        *_board(hardware, parts),
        *_firmware(parts),
        *_smbios(hardware, parts),
        *_disk(hardware, parts),
        *_net(hardware),
        *("-object", "rng-random,filename=/dev/urandom,id=rng0"),
        *("-device", "virtio-rng-pci,rng=rng0,addr=5"),
        *_consoles(parts),
        *_tpm(parts),
        *hardware.qemu_args,
    ]


def _board(hardware: Hardware, parts: Parts) -> list[str]:
    # Compute Engine has no HPET, but a clock for guests (kvm-clock), as KVM has. Without both, a guest on a busy host
    # holds its TSC against its own late ticks (kernel/time/clocksource.c), calls the TSC unstable, and was seen to
    # forget the timers of a processor when it changes clocks.
    hpet = "off" if parts.accelerator.name is AcceleratorName.KVM else "on"
    machine = f"{GUEST.board},hpet={hpet},x-oem-id=Google,x-oem-table-id=GOOGTBL,memory-backend=ram0"
    # What a fork writes stays its own: the template's file is mapped privately (QEMU ≥ 8.2 for `rom=off`).
    sharing = "share=off,readonly=on,rom=off" if parts.template else "share=on"
    if parts.firmware.needs_smm:
        machine += ",smm=on"
    threads = ",thread=multi" if parts.accelerator.name is AcceleratorName.TCG else ""
    return [
        *("-name", f"guest={comma(hardware.hostname)}"),
        *("-machine", machine),
        *("-accel", f"{parts.accelerator.name}{threads}"),
        *("-cpu", parts.accelerator.cpu),
        *("-smp", str(hardware.cpus)),
        *("-m", f"{hardware.memory_mib}M"),
        "-object",
        f"memory-backend-file,id=ram0,size={hardware.memory_mib}M,mem-path={comma(parts.ram)},{sharing}",
        *(("-incoming", "defer") if parts.template else ()),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # No system call that a machine does not need: a QEMU that its guest has taken over starts no program.
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # Paused, so that the monitor listens before the guest's first instruction.
        "-S",
        # A guest that panicked goes on: its last words, its screen and its registers are the diagnosis.
        *("-action", "panic=none"),
        *("-device", "vmgenid,guid=auto"),
        *("-device", "pvpanic"),
        *("-device", "VGA,addr=2"),
    ]


def _firmware(parts: Parts) -> list[str]:
    firmware = parts.firmware
    secure = ("-global", "driver=cfi.pflash01,property=secure,value=on") if firmware.needs_smm else ()

    def flash(unit: int, file: FirmwareFile, path: Path, extra: str = "") -> tuple[str, str]:
        return ("-drive", f"if=pflash,unit={unit},format={file.format}{extra},file={comma(path)}")

    return [
        *secure,
        *flash(0, firmware.code, firmware.code.inside, ",readonly=on"),
        *flash(1, firmware.vars_template, parts.variables),
    ]


def _cmdline_extra(hardware: Hardware, accelerator: Accelerator) -> str:
    """Return what is added to the kernel's command line: on a slower host than any usual one, time for its devices.

    systemd gives a device 90 seconds (systemd-system.conf(5)), which a guest's guest was seen to need until udev had
    looked at all of them; the image would be blamed for its host. What the caller adds comes last, and counts.
    """
    patience = ""
    if accelerator.scale > _USUAL_SCALE:
        patience = f"systemd.default_device_timeout_sec={_DEVICE_SECONDS * accelerator.scale / _USUAL_SCALE:.0f}"
    return f"{patience} {hardware.cmdline_extra}".strip()


def _smbios(hardware: Hardware, parts: Parts) -> list[str]:
    # An empty version hides the name of QEMU's machine type, which would be there otherwise.
    serial = f"GoogleCloud-{hardware.identity.hex.upper()}"
    google = "version=,manufacturer=Google"
    tables = [
        "type=0,vendor=Google,version=Google,date=10/25/2025,uefi=on",
        f"type=1,{google},product=Google Compute Engine,serial={serial},uuid={hardware.identity}",
        f"type=2,{google},product=Google Compute Engine,serial=Board-{serial},asset={hardware.identity}",
        f"type=3,{google}",
    ]
    if extra := _cmdline_extra(hardware, parts.accelerator):
        # systemd-boot reads its own for type #1 entries, systemd-stub reads the other in a unified kernel
        # image.
        tables += [
            f"type=11,value=io.systemd.{reader}.kernel-cmdline-extra={comma(extra)}" for reader in ("boot", "stub")
        ]
    # By file: everybody on the host can read a command line.
    tables += [f"type=11,path={comma(path)}" for path in parts.credential_files]
    return [item for table in tables for item in ("-smbios", table)]


def _disk_faults(faults: DiskFaults) -> tuple[list[str], str]:
    """Return the arguments that put faults on top of the disk, and the name of the node on top."""
    args, top = [], "disk0"
    injections = []
    if faults.bad_sector is not None:
        injections.append(("read", 5, faults.bad_sector))  # EIO
    if faults.full:
        injections.append(("write", 28, -1))  # ENOSPC, any sector
    if injections:
        rules = [
            f"inject-error.{number}.{key}={value}"
            for number, (kind, errno, sector) in enumerate(injections)
            for key, value in (("event", "none"), ("iotype", kind), ("errno", errno), ("sector", sector))
        ]
        args += ["-blockdev", ",".join([f"driver=blkdebug,node-name=faults0,image={top}", *rules])]
        top = "faults0"
    if faults.bytes_per_second is not None:
        args += ["-object", f"throttle-group,id=slow0,x-bps-total={faults.bytes_per_second}"]
        args += ["-blockdev", f"driver=throttle,node-name=throttle0,throttle-group=slow0,file={top}"]
        top = "throttle0"
    return args, top


def _disk(hardware: Hardware, parts: Parts) -> list[str]:
    # A power cut here ends QEMU and not the host, whose page cache survives: a flush has to leave QEMU, no
    # more.
    cache = "cache.no-flush=on"
    broken, top = _disk_faults(hardware.disk_faults)
    blocks = [
        *("-blockdev", f"driver=file,node-name=file0,{cache},filename={comma(parts.disk)}"),
        *("-blockdev", f"driver=qcow2,node-name=disk0,{cache},file=file0"),
        *broken,
    ]
    if hardware.nvme:
        sectors = "physical_block_size=4096,logical_block_size=512"
        return [*blocks, "-device", f"nvme,drive={top},serial=nvme_card-pd,{sectors},addr=3,bootindex=1"]
    return [
        *blocks,
        *("-device", "virtio-scsi-pci,id=scsi0,addr=3"),
        "-device",
        # The guest's rule that makes google-persistent-disk-0 reads the designator that `device_id` sets.
        # Only devices with a boot index are tried: OVMF takes the others, network boot too, off its list.
        (
            f"scsi-hd,bus=scsi0.0,scsi-id=1,lun=0,drive={top},vendor=Google,product=PersistentDisk,ver=1,"
            "device_id=persistent-disk-0,rotation_rate=1,physical_block_size=4096,logical_block_size=512,"
            "bootindex=1"
        ),
    ]


def _net(hardware: Hardware) -> list[str]:
    if hardware.net is Net.NONE:
        return []
    restrict = "on" if hardware.net is Net.ISOLATED else "off"
    # As Compute Engine makes hardware addresses.
    mac = ":".join(["42:01", *(f"{int(part):02x}" for part in hardware.address.split("."))])
    return [
        "-netdev",
        (
            f"user,id=net0,ipv6=off,net=10.128.0.0/20,host=10.128.0.1,dhcpstart={hardware.address},"
            f"hostname={comma(hardware.hostname)},domainname={comma(hardware.domain)},restrict={restrict},"
            # Port 0 lets the kernel choose one that is free, without a race; QEMU's monitor tells which.
            "hostfwd=tcp:127.0.0.1:0-:22"
        ),
        # A fork would announce itself to its network, where nobody has to learn that it moved, and be busy with that.
        *("-device", f"virtio-net-pci,netdev=net0,mac={mac},host_mtu=1460,guest_announce=off,romfile=,addr=4"),
    ]


def _consoles(parts: Parts) -> list[str]:
    # Sockets are inherited, already connected: no path, no race to connect, and nothing stays behind.
    args = [
        *("-chardev", f"socket,id=qmp,fd={parts.qmp_fd}"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=firmware,fd={parts.firmware_fd}"),
        *("-device", f"isa-debugcon,iobase={FIRMWARE_DEBUG_PORT:#x},chardev=firmware"),
    ]
    for index, (fd, log) in enumerate(zip(parts.serial_fds, parts.serial_logs, strict=True)):
        args += [
            # QEMU keeps the bytes itself too: they are there whatever becomes of the reader.
            *("-chardev", f"socket,id=serial{index},fd={fd},logfile={comma(log)},logappend=on"),
            *("-device", f"isa-serial,chardev=serial{index},index={index}"),
        ]
    return args


def _tpm(parts: Parts) -> list[str]:
    if parts.tpm_fd is None:
        return []
    return [
        *("-chardev", f"socket,id=tpm,fd={parts.tpm_fd}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm"),
        *("-device", "tpm-crb,tpmdev=tpm0"),
    ]
