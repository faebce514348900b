"""The hardware of a machine, and the QEMU command line that makes it.

The machine is as near to a Compute Engine instance as QEMU comes (Compute Engine's "Requirements for
building custom images", and what its instances show of themselves): a virtio-scsi disk "Google
PersistentDisk" with 4 KiB physical sectors, virtio-net in 10.128.0.0/20, two 16550A serial ports, an entropy
device, Google's SMBIOS strings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.architecture import GUEST
from vmtests.host.firmware import Firmware, FirmwareFile
from vmtests.machine.hardware import DiskBus, DiskFaults, Hardware, Net

FIRMWARE_DEBUG_PORT = 0x402
"""The I/O port on which OVMF and SeaBIOS write debug messages, when built to write any (OvmfPkg/README)."""

AGENT = "org.qemu.guest_agent.0"
"""The virtio port on which QEMU's guest agent listens (qemu-ga(8))."""

_USUAL_SCALE = 4.0  # of TCG: only KVM that is slower than that has a larger one
_DEVICE_SECONDS = 90.0
_FURTHER_SLOT = 6  # the first on the PCI bus that nothing else is in
_CD_PORT = 5  # the last of six of the board's AHCI


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a machine is put together of; sockets are the numbers of file descriptors that QEMU inherits."""

    accelerator: Accelerator
    firmware: Firmware | None
    """None is QEMU's own BIOS."""
    variables: Path
    disk: Path
    """A qcow2 file."""
    further: tuple[Path, ...] = ()
    """Those of the further disks, the seed's last."""
    credential_files: tuple[Path, ...]
    """Files with `oem_strings`, in their order."""
    fw_cfg_files: tuple[Path, ...] = ()
    """Files with what `Hardware.fw_cfg` holds, in its order."""
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
    agent_fd: int | None = None


def comma(value: str | Path) -> str:
    """Return `value` as part of a QEMU option: a comma is written twice (qemu(1))."""
    return str(value).replace(",", ",,")


def qemu_args(hardware: Hardware, parts: Parts) -> list[str]:
    """Return QEMU's arguments, without the program; the machine starts paused."""
    return [
        *_board(hardware, parts),
        *_firmware(parts),
        *_direct(hardware, parts),
        *_smbios(hardware, parts),
        *_disk(hardware, parts),
        *_net(hardware),
        *("-object", "rng-random,filename=/dev/urandom,id=rng0"),
        *("-device", "virtio-rng-pci,rng=rng0,addr=5"),
        *_consoles(parts),
        *_tpm(parts),
        *_agent(parts),
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
    if parts.firmware is None:
        # SeaBIOS shows its screen on the serial line then, and a boot loader's that has no word for serial lines.
        machine += ",graphics=off"
    elif parts.firmware.needs_smm:
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
    if (firmware := parts.firmware) is None:
        return []
    secure = ("-global", "driver=cfi.pflash01,property=secure,value=on") if firmware.needs_smm else ()

    def flash(unit: int, file: FirmwareFile, path: Path, extra: str = "") -> tuple[str, str]:
        return ("-drive", f"if=pflash,unit={unit},format={file.format}{extra},file={comma(path)}")

    return [
        *secure,
        *flash(0, firmware.code, firmware.code.inside, ",readonly=on"),
        *flash(1, firmware.vars_template, parts.variables),
    ]


def _direct(hardware: Hardware, parts: Parts) -> list[str]:
    """Return what starts a kernel without a boot loader, which could add words to its command line."""
    if hardware.kernel is None:
        return []
    line = f"{hardware.append} {_cmdline_extra(hardware, parts.accelerator)}".strip()
    return [
        *("-kernel", str(hardware.kernel.absolute())),
        *(() if hardware.initrd is None else ("-initrd", str(hardware.initrd.absolute()))),
        *(("-append", line) if line else ()),
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
        f"type=0,vendor=Google,version=Google,date=10/25/2025{'' if parts.firmware is None else ',uefi=on'}",
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
    args = [item for table in tables for item in ("-smbios", table)]
    for name, path in zip(hardware.fw_cfg, parts.fw_cfg_files, strict=True):
        args += ["-fw_cfg", f"name={comma(name)},file={comma(path)}"]
    return args


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
    bus, sector = hardware.disk_bus or DiskBus.VIRTIO_SCSI, hardware.sector_size or 512
    broken, top = _disk_faults(hardware.disk_faults)
    args = [*_blocks(0, parts.disk), *broken]
    if bus is DiskBus.VIRTIO_SCSI:
        args += ["-device", "virtio-scsi-pci,id=scsi0,addr=3"]
    # Only devices with a boot index are tried: OVMF takes the others, network boot too, off its list.
    args += ["-device", f"{_device(bus, 0, top, sector)},bootindex=1"]
    further = DiskBus.SATA if bus is DiskBus.CDROM else bus
    for number, path in enumerate(parts.further, start=1):
        args += [
            *_blocks(number, path),
            "-device",
            _device(further, number, f"disk{number}", hardware.sector_size or 512),
        ]
    if hardware.cdrom is not None:
        disc = f"driver=file,node-name=disc0,read-only=on,filename={comma(hardware.cdrom.absolute())}"
        args += ["-blockdev", disc, "-device", f"ide-cd,bus=ide.{_CD_PORT},drive=disc0,bootindex=2"]
    return args


def _blocks(number: int, path: Path) -> Iterator[str]:
    """Yield what makes `disk<number>` of a qcow2 file."""
    # A power cut here ends QEMU and not the host, whose page cache survives: a flush has to leave QEMU, no
    # more.
    cache = "cache.no-flush=on"
    yield from ("-blockdev", f"driver=file,node-name=file{number},{cache},filename={comma(path)}")
    yield from ("-blockdev", f"driver=qcow2,node-name=disk{number},{cache},file=file{number}")


def _device(bus: DiskBus, number: int, node: str, sector: int) -> str:
    """Return the guest's disk: the first one is the image's."""
    name, sectors = f"persistent-disk-{number}", f"physical_block_size=4096,logical_block_size={sector}"
    slot = f"addr={_FURTHER_SLOT + number - 1}" if number else "addr=3"
    match bus:
        case DiskBus.VIRTIO_SCSI:
            # The guest's rule that makes google-persistent-disk-0 reads the designator that `device_id` sets.
            return (
                f"scsi-hd,bus=scsi0.0,scsi-id={number + 1},lun=0,drive={node},vendor=Google,product=PersistentDisk,"
                f"ver=1,device_id={name},rotation_rate=1,{sectors}"
            )
        case DiskBus.VIRTIO_BLK:
            return f"virtio-blk-pci,drive={node},serial={name},{sectors},{slot}"
        case DiskBus.NVME:
            return f"nvme,drive={node},serial=nvme_card-pd{number or ''},{sectors},{slot}"
        case DiskBus.SATA:
            return f"ide-hd,bus=ide.{number},drive={node},serial={name},rotation_rate=1,{sectors}"
        case DiskBus.CDROM:
            return f"ide-cd,bus=ide.{number},drive={node},serial={name}"


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


def _agent(parts: Parts) -> list[str]:
    if parts.agent_fd is None:
        return []
    return [
        *("-chardev", f"socket,id=agent,fd={parts.agent_fd}"),
        *("-device", "virtio-serial-pci,id=ports0", "-device", f"virtserialport,chardev=agent,name={AGENT}"),
    ]
