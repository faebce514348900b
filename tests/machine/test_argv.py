"""The QEMU command line."""

import base64
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.errors import InputError
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware
from vmtests.machine.argv import Parts, comma, qemu_args
from vmtests.machine.hardware import Disk, DiskBus, DiskFaults, FirmwareKind, Hardware, Net, oem_strings
from vmtests.sizes import MIB

SERIAL = "GoogleCloud-76D7E575000040008000000000000001"
IDENTITY = "76d7e575-0000-4000-8000-000000000001"


@pytest.fixture
def parts(tcg: Accelerator, ovmf: Firmware) -> Parts:
    """The parts of a plain machine."""
    return Parts(
        accelerator=tcg,
        firmware=ovmf,
        variables=Path("/r/variables"),
        disk=Path("/r/disk.qcow2"),
        credential_files=(),
        qmp_fd=10,
        serial_fds=(11, 12),
        serial_logs=(Path("/r/ttyS0.log"), Path("/r/ttyS1.log")),
        firmware_fd=13,
        ram=Path("/proc/self/fd/14"),
    )


def option(args: list[str], name: str) -> list[str]:
    """Return every value of an option."""
    return [args[index + 1] for index, arg in enumerate(args) if arg == name]


def test_default_machine(parts: Parts) -> None:
    """The default machine is exactly this command line."""
    expected = [
        *("-name", "guest=vm-1"),
        *("-machine", "q35,hpet=on,x-oem-id=Google,x-oem-table-id=GOOGTBL,memory-backend=ram0"),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024M"),
        *("-object", "memory-backend-file,id=ram0,size=1024M,mem-path=/proc/self/fd/14,share=on"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-S", "-action", "panic=none"),
        *("-device", "vmgenid,guid=auto", "-device", "pvpanic", "-device", "VGA,addr=2"),
        *("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd"),
        *("-drive", "if=pflash,unit=1,format=raw,file=/r/variables"),
        *("-smbios", "type=0,vendor=Google,version=Google,date=10/25/2025,uefi=on"),
        "-smbios",
        f"type=1,version=,manufacturer=Google,product=Google Compute Engine,serial={SERIAL},uuid={IDENTITY}",
        "-smbios",
        (f"type=2,version=,manufacturer=Google,product=Google Compute Engine,serial=Board-{SERIAL},asset={IDENTITY}"),
        *("-smbios", "type=3,version=,manufacturer=Google"),
        *("-blockdev", "driver=file,node-name=file0,cache.no-flush=on,filename=/r/disk.qcow2"),
        *("-blockdev", "driver=qcow2,node-name=disk0,cache.no-flush=on,file=file0"),
        *("-device", "virtio-scsi-pci,id=scsi0,addr=3"),
        "-device",
        (
            "scsi-hd,bus=scsi0.0,scsi-id=1,lun=0,drive=disk0,vendor=Google,product=PersistentDisk,ver=1,"
            "device_id=persistent-disk-0,rotation_rate=1,physical_block_size=4096,logical_block_size=512,"
            "bootindex=1"
        ),
        "-netdev",
        (
            "user,id=net0,ipv6=off,net=10.128.0.0/20,host=10.128.0.1,dhcpstart=10.128.0.2,hostname=vm-1,"
            "domainname=us-central1-a.c.p.internal,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"
        ),
        "-device",
        "virtio-net-pci,netdev=net0,mac=42:01:0a:80:00:02,host_mtu=1460,guest_announce=off,romfile=,addr=4",
        *("-object", "rng-random,filename=/dev/urandom,id=rng0"),
        *("-device", "virtio-rng-pci,rng=rng0,addr=5"),
        *("-chardev", "socket,id=qmp,fd=10", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=firmware,fd=13", "-device", "isa-debugcon,iobase=0x402,chardev=firmware"),
        *("-chardev", "socket,id=serial0,fd=11,logfile=/r/ttyS0.log,logappend=on"),
        *("-device", "isa-serial,chardev=serial0,index=0"),
        *("-chardev", "socket,id=serial1,fd=12,logfile=/r/ttyS1.log,logappend=on"),
        *("-device", "isa-serial,chardev=serial1,index=1"),
    ]
    assert expected == qemu_args(Hardware(), parts)


def test_a_broken_disk(parts: Parts) -> None:
    """Faults are nodes on top of the disk, and the guest's disk is the one on top of all."""
    faults = DiskFaults(bad_sector=7, full=True, bytes_per_second=1000)
    args = qemu_args(Hardware(disk_faults=faults), parts)
    blkdebug, throttle = option(args, "-blockdev")[-2:]
    assert blkdebug.startswith("driver=blkdebug,node-name=faults0,image=disk0,")
    assert "inject-error.0.iotype=read,inject-error.0.errno=5,inject-error.0.sector=7" in blkdebug
    assert "inject-error.1.iotype=write,inject-error.1.errno=28,inject-error.1.sector=-1" in blkdebug
    assert throttle == "driver=throttle,node-name=throttle0,throttle-group=slow0,file=faults0"
    assert any("drive=throttle0," in device for device in option(args, "-device"))


def test_kvm(parts: Parts) -> None:
    """With KVM the guest gets the host's CPU and clock, and no option that only TCG knows."""
    kvm = Accelerator(name=AcceleratorName.KVM, reason="test", cpu="host", scale=1)
    args = qemu_args(Hardware(), dataclasses.replace(parts, accelerator=kvm))
    assert (option(args, "-accel"), option(args, "-cpu")) == (["kvm"], ["host"])
    assert "hpet=off" in option(args, "-machine")[0].split(",")


def test_firmware_that_needs_smm(parts: Parts) -> None:
    """Firmware for secure boot gets SMM, and flash that only SMM may write."""
    assert parts.firmware is not None
    firmware = dataclasses.replace(parts.firmware, features=frozenset({"requires-smm"}))
    args = qemu_args(Hardware(secure_boot=True), dataclasses.replace(parts, firmware=firmware))
    assert ",smm=on" in option(args, "-machine")[0]
    assert option(args, "-global") == ["driver=cfi.pflash01,property=secure,value=on"]


def test_tpm(parts: Parts) -> None:
    """A TPM is reached over an inherited socket."""
    args = qemu_args(Hardware(tpm=True), dataclasses.replace(parts, tpm_fd=14))
    assert option(args, "-tpmdev") == ["emulator,id=tpm0,chardev=tpm"]
    assert "socket,id=tpm,fd=14" in option(args, "-chardev")


@pytest.mark.parametrize(("net", "restrict"), [(Net.ISOLATED, "restrict=on"), (Net.USER, "restrict=off")])
def test_network(parts: Parts, net: Net, restrict: str) -> None:
    """The guest reaches the host's network only when that is asked for."""
    (netdev,) = option(qemu_args(Hardware(net=net), parts), "-netdev")
    assert restrict in netdev.split(",")


def test_address(parts: Parts) -> None:
    """The guest gets its address and domain by DHCP, and a hardware address made as Compute Engine makes them."""
    args = qemu_args(Hardware(address="10.128.3.17", domain="z.c.p.internal", net=Net.USER), parts)
    (netdev,) = option(args, "-netdev")
    assert {"dhcpstart=10.128.3.17", "domainname=z.c.p.internal"} <= set(netdev.split(","))
    assert [arg for arg in args if "mac=42:01:0a:80:03:11" in arg]


def disk_devices(args: list[str]) -> list[str]:
    """Return the guest's disks and drives."""
    return [device for device in option(args, "-device") if "drive=" in device]


@pytest.mark.parametrize(
    ("bus", "first", "second"),
    [
        (DiskBus.VIRTIO_SCSI, "scsi-hd", "scsi-hd"),
        (DiskBus.VIRTIO_BLK, "virtio-blk-pci", "virtio-blk-pci"),
        (DiskBus.NVME, "nvme", "nvme"),
        (DiskBus.SATA, "ide-hd", "ide-hd"),
        (DiskBus.CDROM, "ide-cd", "ide-hd"),
    ],
)
def test_bus(parts: Parts, bus: DiskBus, first: str, second: str) -> None:
    """Each disk is on the bus, a further one behind the image's, from which alone the machine boots."""
    parts = dataclasses.replace(parts, further=(Path("/r/disk-1.qcow2"),))
    args = qemu_args(Hardware(disk_bus=bus, disks=(Disk(size=MIB),)), parts)
    one, two = disk_devices(args)
    assert [first, second] == [device.split(",")[0] for device in (one, two)]
    assert "drive=disk0" in one
    assert "drive=disk1" in two
    assert [True, False] == ["bootindex=1" in device for device in (one, two)]
    assert any("virtio-scsi-pci" in device for device in option(args, "-device")) is (bus is DiskBus.VIRTIO_SCSI)
    assert option(args, "-blockdev")[-2].endswith("filename=/r/disk-1.qcow2")


def test_places_on_the_bus_differ(parts: Parts) -> None:
    """No two devices of a machine with everything have one slot, unit or port."""
    further = tuple(Path(f"/r/{number}") for number in range(3))
    for bus in DiskBus:
        hardware = Hardware(disk_bus=bus, disks=(Disk(size=MIB),) * 3, cdrom=Path("/iso"))
        devices = option(qemu_args(hardware, dataclasses.replace(parts, further=further)), "-device")
        for key in ("addr=", "scsi-id=", "bus=ide."):
            places = [word for device in devices for word in device.split(",") if word.startswith(key)]
            assert len(places) == len(set(places))


def test_disc(parts: Parts) -> None:
    """A disc is in a drive that nobody writes to, and booted from where the disk does not boot."""
    args = qemu_args(Hardware(cdrom=Path("/a,b.iso")), parts)
    assert option(args, "-blockdev")[-1] == "driver=file,node-name=disc0,read-only=on,filename=/a,,b.iso"
    assert next(device for device in disk_devices(args) if "ide-cd" in device).endswith("drive=disc0,bootindex=2")


def test_bios(parts: Parts) -> None:
    """A BIOS is QEMU's own: there is no flash, its screen is on the serial line, and no table speaks of UEFI."""
    args = qemu_args(Hardware(firmware=FirmwareKind.BIOS), dataclasses.replace(parts, firmware=None))
    assert not [arg for arg in args if "pflash" in arg or "uefi" in arg]
    assert option(args, "-machine")[0].endswith(",graphics=off")


def test_kernel_by_hand(parts: Parts) -> None:
    """A kernel that is given starts with its initrd, and what is added comes behind its command line."""
    hardware = Hardware(kernel=Path("/k"), initrd=Path("/i"), append="root=/dev/sda", cmdline_extra="quiet")
    args = qemu_args(hardware, parts)
    assert ["/k", "/i", "root=/dev/sda quiet"] == [option(args, name)[0] for name in ("-kernel", "-initrd", "-append")]
    assert "-initrd" not in qemu_args(Hardware(kernel=Path("/k")), parts)


def test_firmware_configuration_goes_by_file(parts: Parts) -> None:
    """What a guest reads of fw_cfg is in a file, as credentials are."""
    hardware = Hardware(fw_cfg={"opt/com.coreos/config": b"{}"})
    args = qemu_args(hardware, dataclasses.replace(parts, fw_cfg_files=(Path("/r/fw-0"),)))
    assert option(args, "-fw_cfg") == ["name=opt/com.coreos/config,file=/r/fw-0"]


def test_no_network(parts: Parts) -> None:
    """A machine without network has no card."""
    args = qemu_args(Hardware(net=Net.NONE), parts)
    assert [arg for arg in args if "net0" in arg] == []


def test_guest_agent(parts: Parts) -> None:
    """The agent's port has the name by which it looks for it, over an inherited socket."""
    args = qemu_args(Hardware(agent=True), dataclasses.replace(parts, agent_fd=15))
    assert "socket,id=agent,fd=15" in option(args, "-chardev")
    assert option(args, "-device")[-1] == "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"


def test_own_arguments_come_last(parts: Parts) -> None:
    """What somebody wants of QEMU stands behind all that we want."""
    own = ("-device", "e1000e")
    assert (*qemu_args(Hardware(), parts), *own) == tuple(qemu_args(Hardware(qemu_args=own), parts))


def test_kernel_command_line(parts: Parts) -> None:
    """What is added to the kernel's command line reaches the boot loader and the stub; commas survive."""
    args = qemu_args(Hardware(cmdline_extra="a=1,2 b"), parts)
    assert option(args, "-smbios")[-2:] == [
        "type=11,value=io.systemd.boot.kernel-cmdline-extra=a=1,,2 b",
        "type=11,value=io.systemd.stub.kernel-cmdline-extra=a=1,,2 b",
    ]


def test_slow_kvm_gives_its_guest_time(parts: Parts) -> None:
    """Where KVM is slower than TCG usually is, devices have longer to appear; what the caller says comes behind it."""
    slow = Accelerator(name=AcceleratorName.KVM, reason="test", cpu="host", scale=24)
    args = qemu_args(Hardware(cmdline_extra="quiet"), dataclasses.replace(parts, accelerator=slow))
    said = "kernel-cmdline-extra=systemd.default_device_timeout_sec=540 quiet"
    assert [said] * 2 == [arg.partition("io.systemd.")[2].partition(".")[2] for arg in args if "cmdline-extra" in arg]


def test_credentials_go_by_file(parts: Parts) -> None:
    """A credential is never on the command line, only its file's name is."""
    hardware = Hardware(credentials={"a.b": b"secret"})
    args = qemu_args(hardware, dataclasses.replace(parts, credential_files=(Path("/r/a,b"),)))
    assert option(args, "-smbios")[-1] == "type=11,path=/r/a,,b"
    assert not any("secret" in arg or "c2VjcmV0" in arg for arg in args)


def test_oem_string() -> None:
    """A credential is an OEM string in base64, as systemd.system-credentials(7) says."""
    hardware = Hardware(credentials={"ssh.authorized_keys.root": b"k"})
    assert oem_strings(hardware) == [b"io.systemd.credential.binary:ssh.authorized_keys.root=aw=="]


@given(value=st.binary(max_size=300))
def test_any_credential_survives(value: bytes) -> None:
    """Any bytes come out of an OEM string as they went in, and none of them can end it early."""
    (text,) = oem_strings(Hardware(credentials={"x": value}))
    assert text.isascii()
    assert not {b"\0", b"\n"} & {bytes([byte]) for byte in text}
    assert value == base64.b64decode(text.partition(b"=")[2])


@given(value=st.text())
def test_comma_is_doubled(value: str) -> None:
    """A value in an option means itself, whatever it holds."""
    assert value == comma(value).replace(",,", ",")
    assert 2 * value.count(",") == comma(value).count(",")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b", "a=b", "a b", "n" * 256])
def test_bad_credential_name(name: str) -> None:
    """A name that systemd would refuse is refused here."""
    with pytest.raises(InputError, match="not the name of a credential"):
        Hardware(credentials={name: b""})


@pytest.mark.parametrize(("memory", "cpus"), [(31, 1), (1024, 0)])
def test_machine_too_small(memory: int, cpus: int) -> None:
    """A machine that could not boot is not made."""
    with pytest.raises(InputError, match="cannot boot"):
        Hardware(memory_mib=memory, cpus=cpus)


@pytest.mark.parametrize("text", ["a\nb", "a\0b"])
def test_command_line_of_one_line(text: str) -> None:
    """What is added to the kernel's command line is one line."""
    with pytest.raises(InputError, match="one line"):
        Hardware(cmdline_extra=text)
    with pytest.raises(InputError, match="append goes on the kernel's command line"):
        Hardware(kernel=Path("/k"), append=text)


def test_contradictions() -> None:
    """Hardware that contradicts itself is one sentence."""
    with pytest.raises(InputError, match="without a kernel"):
        Hardware(initrd=Path("/i"))
    with pytest.raises(InputError, match="no secure boot"):
        Hardware(firmware=FirmwareKind.BIOS, secure_boot=True)
    with pytest.raises(InputError, match="an image, or a size"):
        Disk()
    with pytest.raises(InputError, match="8 further disks at most"):
        Hardware(disks=(Disk(size=MIB),) * 9)
    for name in ("com.coreos/config", f"opt/{'x' * 60}", "opt/a\n"):
        with pytest.raises(InputError, match="no file that fw_cfg takes"):
            Hardware(fw_cfg={name: b""})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("net", word) for word in ("none", "isolated")),
        *(("firmware", "bios"), ("disk_bus", "nvme")),
        *(("memory_mib", "2048"), ("disk_size", "8G"), ("cdrom", "disc.iso"), ("qemu_args", "-device x")),
        *(("disks", ["disk.raw"]), ("seed", {"user-data": "text"})),
    ],
)
def test_value_of_another_type(field: str, value: object) -> None:
    """A value of another type is one sentence: a word for a network is not taken for one that is open."""
    with pytest.raises(InputError, match=rf"^Hardware\({field}=…\) takes .* and was given a {type(value).__name__}$"):
        Hardware(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^Disk\(image=…\) takes Path \| None, and was given a str$"):
        Disk(image="disk.raw")  # type: ignore[arg-type]


def test_fork(parts: Parts) -> None:
    """A fork maps its template's memory privately, never writes to it, and waits for the state of the devices."""
    args = qemu_args(Hardware(), dataclasses.replace(parts, ram=Path("/t/ram"), template=True))
    memory = "memory-backend-file,id=ram0,size=1024M,mem-path=/t/ram,share=off,readonly=on,rom=off"
    assert memory in option(args, "-object")
    assert option(args, "-incoming") == ["defer"]
