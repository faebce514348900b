"""A test can have a machine of its own: forked from the booted one, pristine, with an identity where it matters."""

import secrets
import time

import pytest

from vmtests.contract import Contract
from vmtests.guest import promises
from vmtests.suite.conftest import store_writer
from vmtests.vm import FreshVms, Vm

CLOCK_LIMIT = 1.0
"""Seconds that the clock of a fresh machine may differ from the host's."""
# Of the kernel (proc(5)), since an image may have no date(1): when it booted, by its clock as it is now, and how long
# ago that was.
_CLOCK = """
while read -r name value; do [ "$name" != btime ] || echo "$value"; done </proc/stat
read -r up idle </proc/uptime; echo "$up"
"""


@pytest.mark.vm(promises="store")
def test_fresh_machines_share_nothing(fresh_vms: FreshVms, vm_contract: Contract) -> None:
    """What one fresh machine writes, to its memory, its disk or the store, no other sees."""
    one, other = fresh_vms(2)
    nonce = secrets.token_hex(8)
    one.run(f"echo {nonce} > /run/fresh; echo {nonce} > /var/fresh; sync").check()
    store_writer(one, vm_contract)(f"echo {nonce} > fresh").check()
    seen = f"cat /run/fresh /var/fresh {vm_contract.store.mount}/fresh"
    assert one.run(seen).check().lines == [nonce] * 3
    assert other.run(seen).stdout == ""


@pytest.mark.vm(target="qemu")
def test_fresh_machines_draw_different_random_numbers(fresh_vms: FreshVms) -> None:
    """Two machines forked from one memory draw different random numbers from the first on."""
    drawn = [vm.run("cat /proc/sys/kernel/random/uuid").check().stdout for vm in fresh_vms(2)]
    assert len(set(drawn)) == 2


@pytest.mark.vm(target="qemu")
def test_machine_is_forked_where_it_is(fresh_vm: Vm) -> None:
    """A fork has what was in the memory and on the disk of its machine; then neither sees what the other writes."""
    nonce = secrets.token_hex(8)
    # An image whose root is read-only has memory alone.
    places = fresh_vm.run("for place in /run /var; do [ ! -w $place ] || echo $place; done").check().lines
    assert places
    write, read = "for place in {}; do echo {} >$place/{}; done; sync", "for place in {}; do cat $place/{}; done"
    where = " ".join(places)
    fresh_vm.run(write.format(where, nonce, "before")).check()
    with fresh_vm.fork() as fork:
        assert fork.run(read.format(where, "before")).check().lines == [nonce] * len(places)
        for vm, name in ((fork, "fork"), (fresh_vm, "origin")):
            vm.run(write.format(where, name, "after")).check()
        for vm, name in ((fork, "fork"), (fresh_vm, "origin")):
            assert vm.run(read.format(where, "after")).check().lines == [name] * len(places)


@pytest.mark.vm(target="qemu")
def test_fresh_machine_knows_the_time(fresh_vm: Vm) -> None:
    """The clock of a fresh machine, which stood still since the snapshot, is that of the host."""
    before = time.time()
    seconds, uptime = map(float, fresh_vm.run(_CLOCK).check().stdout.split())
    assert before - CLOCK_LIMIT - 1 < seconds + uptime < time.time() + CLOCK_LIMIT  # `btime` has no fractions


@pytest.mark.vm(promises="store")
def test_fresh_machine_answers_over_ssh(fresh_vm: Vm) -> None:
    """ssh reaches the fresh machine, and no other: what was written on its serial line is there."""
    nonce = secrets.token_hex(8)
    fresh_vm.shell.run(f"echo {nonce} > /run/fresh").check()
    assert fresh_vm.ssh.run("cat /run/fresh").check().stdout == f"{nonce}\n"


def test_fresh_machine_is_healthy(fresh_vm: Vm, vm_contract: Contract) -> None:
    """No unit of a fresh machine has failed but those that may."""
    assert list(promises.units(vm_contract, fresh_vm)) == []
