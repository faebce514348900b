"""The fixtures. What they do is done by `vmtests.plugin.machines`, which is imported when the first is set up."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from vmtests.plugin.needs import MARKER, Needs
from vmtests.plugin.options import machine_types

if TYPE_CHECKING:  # what these are takes longer to import than pytest
    from vmtests.contract import Contract
    from vmtests.plugin.machines import Machines, Ready
    from vmtests.vm import ColdVm, FreshVms, Image, Vm

OURS = "_vmtests_machines"
"""What every test that needs a machine needs; nobody else's fixture is called so."""

MACHINE_TYPE = "_vmtests_machine_type"
NEEDS = "_vmtests_needs"
PROMISED = "_vmtests_promised"


@pytest.fixture(scope="session")
def _vmtests_machine_type(request: pytest.FixtureRequest) -> str:
    """The machine type of instances on Compute Engine, of which there may be several; empty for the default."""
    return str(getattr(request, "param", "") or next(iter(machine_types(request.config)), ""))


@pytest.fixture(scope="session")
def _vmtests_needs(request: pytest.FixtureRequest) -> Needs:
    """What the test says that it needs."""
    needs = getattr(request, "param", Needs())
    assert isinstance(needs, Needs)
    return needs


@pytest.fixture(scope="session")
def _vmtests_machines(pytestconfig: pytest.Config, _vmtests_machine_type: str) -> "Iterator[Machines]":
    """What makes images and machines, on this host or on Compute Engine."""
    from vmtests.plugin.machines import Machines

    with Machines.of(pytestconfig, _vmtests_machine_type) as machines:
        yield machines


@pytest.fixture(scope="session")
def _vmtests_ready(_vmtests_machines: "Machines", vm_image: "Image", _vmtests_needs: Needs) -> "Iterator[Ready]":
    """The machine of `vm_boot`, and the snapshot of it before any test has touched it."""
    with _vmtests_machines.ready(vm_image, _vmtests_needs.hardware) as ready:
        yield ready


@pytest.fixture(scope="session")
def vm_contract(vm_image: "Image") -> "Contract":
    """The contract that the image under test is held to: `--vm-contract`, else ours where it has our layout."""
    return vm_image.contract


@pytest.fixture
def _vmtests_promised(request: pytest.FixtureRequest, vm_contract: "Contract") -> None:
    """Leave a test out that needs a promise which the image's contract does not make."""
    needed = Needs.of(request.node.iter_markers(MARKER)).promises
    if missing := [promise for promise in needed if promise not in vm_contract.promises]:
        pytest.skip(f"not promised by {vm_contract.shown}: {', '.join(missing)}")


@pytest.fixture(scope="session")
def vm_image(_vmtests_machines: "Machines", _vmtests_needs: Needs) -> "Image":
    """The image under test, built unless it is in the cache, and inspected."""
    return _vmtests_machines.image(_vmtests_needs.image, _vmtests_needs.modules)


@pytest.fixture(scope="session")
def vm_boot(_vmtests_ready: "Ready") -> "Vm":
    """One followed cold boot of the image under test, which got ready; it fails once, with the verdict.

    With `--vm-reuse` it is that of an earlier run, if image, machine and vmtests are the same.
    """
    return _vmtests_ready.vm


@pytest.fixture
def vm(vm_boot: "Vm", _vmtests_machines: "Machines") -> "Vm":
    """The machine of `vm_boot`, shared by all tests: leave it as you found it."""
    _vmtests_machines.check(vm_boot)
    return vm_boot


@pytest.fixture
def fresh_vms(
    _vmtests_machines: "Machines", vm_image: "Image", _vmtests_ready: "Ready", request: pytest.FixtureRequest
) -> "Iterator[FreshVms]":
    """A function that returns so many pristine booted machines for this test alone: `one, other = fresh_vms(2)`."""
    with _vmtests_machines.fresh(vm_image, _vmtests_ready, request.node.nodeid) as make:
        yield make


@pytest.fixture
def fresh_vm(fresh_vms: "FreshVms") -> "Vm":
    """A pristine booted machine for this test alone, forked from the machine of `vm_boot`."""
    return fresh_vms(1)[0]


@pytest.fixture
def cold_vm(
    _vmtests_machines: "Machines", vm_image: "Image", _vmtests_needs: Needs, request: pytest.FixtureRequest
) -> "Iterator[ColdVm]":
    """A factory of machines of this test's own, booted cold.

    `cold_vm(hardware=…, modules=[…], ready=True)`; modules need the reference image. With `ready=False` the
    machine is handed out as soon as it is powered on.
    """
    with _vmtests_machines.cold(vm_image, _vmtests_needs.hardware, request.node.nodeid) as make:
        yield make
