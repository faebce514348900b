"""On Compute Engine: what only a cloud gives to a guest, and what it does to it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.gce.vm import GceVm
from vmtests.guest import devices
from vmtests.guest.result import Result
from vmtests.plugin.machines import Machines
from vmtests.vm import Image, Vm

pytestmark = pytest.mark.vm(target="gce")

METADATA = "169.254.169.254"
MTU = 1460
"""What the networks of Compute Engine have unless told otherwise ("MTU")."""

CLOCK_LIMIT = 5.0
"""Seconds that the guest's clock may differ from the host's: both follow a time server."""

# Without curl, which an image need not have: bash speaks TCP.
_GET = (
    "exec 3<>/dev/tcp/{address}/80; "
    "printf 'GET /computeMetadata/v1/{path} HTTP/1.0\\r\\nMetadata-Flavor: Google\\r\\n\\r\\n' >&3; cat <&3"
)


def metadata(vm: Vm, path: str) -> str:
    """Return what the metadata server says to the guest."""
    command = _GET.format(address=METADATA, path=path)
    answer = vm.run(f'timeout 30 bash -c "{command}"').check().stdout
    head, _, body = answer.partition("\r\n\r\n")
    assert " 200 " in head.splitlines()[0]
    return body


@pytest.fixture
def instance(vm: Vm) -> GceVm:
    """The shared machine, as the instance that it is."""
    assert isinstance(vm, GceVm)
    return vm


def test_metadata_is_reachable(instance: GceVm) -> None:
    """The guest reaches its metadata server, which knows it by the instance's name."""
    assert instance.instance.thing.name == metadata(instance, "instance/name")


def test_hostname_is_the_instances(instance: GceVm) -> None:
    """The guest is called as the instance is."""
    assert instance.instance.thing.name == instance.run("uname -n").check().stdout.strip().partition(".")[0]


def test_metadata_server_has_its_name(instance: GceVm) -> None:
    """The name metadata.google.internal leads to the metadata server."""
    found = instance.run("getent ahostsv4 metadata.google.internal").check().stdout.split()
    assert METADATA == found[0]


def test_mtu_is_the_networks(instance: GceVm) -> None:
    """The network card has the MTU that its network tells it."""
    card = instance.run("ip -o -4 route show default | head -n 1").check().stdout.split()
    name = card[card.index("dev") + 1]
    assert MTU == int(instance.run(f"cat /sys/class/net/{name}/mtu").check().stdout)


def test_guest_agent_is_alive(instance: GceVm) -> None:
    """The guest agent runs, and has not been started again."""
    shown = instance.run("systemctl show google-guest-agent.service -p ActiveState -p NRestarts --value").check()
    assert {"active", "0"} == set(shown.lines)


def test_key_came_by_metadata(instance: GceVm) -> None:
    """The guest agent has written the key of this run, and of this run only."""
    told = metadata(instance, "instance/attributes/ssh-keys")
    assert f"root:{instance.key.public}" == told.strip()
    assert instance.key.public.split()[1] in instance.run("cat /root/.ssh/authorized_keys").check().stdout


def test_time_is_kept(instance: GceVm) -> None:
    """A client of NTP runs, asks the metadata server, and the clock is right."""
    services = "systemd-timesyncd chrony chronyd ntp ntpd"
    active = instance.run(f"systemctl is-active {services}").lines
    assert "active" in active
    files = "/etc/systemd/timesyncd.conf /etc/systemd/timesyncd.conf.d /etc/chrony /etc/chrony.conf /etc/ntp.conf"
    instance.run(f"grep -rqsE 'metadata.google.internal|{METADATA}' {files}").check()
    before = time.time()
    told = float(instance.run("date +%s.%N").check().stdout)
    assert before - CLOCK_LIMIT < told < time.time() + CLOCK_LIMIT


def test_getty_is_on_the_serial_console(instance: GceVm, vm_contract: Contract) -> None:
    """Who comes by the serial console finds a getty there, and not a root shell."""
    unit = f"serial-getty@{vm_contract.boot.console}.service"
    assert "active" == instance.run(f"systemctl is-active {unit}").stdout.strip()


def test_console_is_that_of_the_boot(instance: GceVm) -> None:
    """What was followed by polling has every stage, and lines with time and stage."""
    console = (instance.results / "console.log").read_bytes()
    assert b"Linux version" in console or b"EFI stub" in console
    assert set(Stage) == set(instance.timeline.starts)


def test_screen_can_be_looked_at(instance: GceVm) -> None:
    """The screen is an image file."""
    assert instance.screenshot().read_bytes().startswith((b"\x89PNG", b"\xff\xd8\xff"))


def test_disk_is_found_by_its_device_name(instance: GceVm) -> None:
    """The disk is a PersistentDisk, on virtio-scsi or NVMe, with the size that was ordered."""
    disk = list(devices.each(devices.under(instance.mounts.top("/"), instance)))[-1].kname
    kind = instance.run(f"cat /sys/class/block/{disk}/device/model").check().stdout.strip()
    assert kind in {"PersistentDisk", "nvme_card-pd"} or disk.startswith("nvme")
    size = int(instance.run(f"cat /sys/class/block/{disk}/size").check().stdout) * 512
    assert instance.order.disk_size == size


@pytest.fixture(scope="module")
def stopped(_vmtests_machines: Machines, vm_image: Image) -> Iterator[dict[str, Result]]:
    """What a machine of its own says before and after each thing that is done to it by the API."""
    with ExitStack() as stack:
        with _vmtests_machines.run.uncaptured():
            vm = stack.enter_context(_vmtests_machines.lab.fork(vm_image, None, name="stopped"))
            assert isinstance(vm, GceVm)
            # An image that can be read only has nothing that could be lost.
            kept = "cat /var/kept" if vm.run("[ -w /var ] && echo kept > /var/kept && sync").ok else "echo kept"
            ask = f"cat /proc/sys/kernel/random/boot_id; {kept}; systemctl is-system-running"
            answers = {"first": vm.run(ask)}
            vm.reset()
            answers["reset"] = vm.run(ask)
            vm.stop_start()
            answers["started"] = vm.run(ask)
        yield answers


@pytest.mark.parametrize("after", ["reset", "started"])
def test_machine_comes_back(stopped: dict[str, Result], vm_contract: Contract, after: str) -> None:
    """Reset by the API, and stopped and started by it, the machine is ready again, with what was on its disk."""
    _, kept, state = stopped[after].lines
    assert "kept" == kept
    assert state in {"running", "degraded" if vm_contract.units.may_fail else "running"}


def test_each_is_another_boot(stopped: dict[str, Result]) -> None:
    """A reset, and a stop with a start, are boots of their own."""
    assert 3 == len({result.lines[0] for result in stopped.values()})
