"""What the suite's tests share: machines of their own that boot beside the others, and writing as Nix writes."""

import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from vmtests import progress
from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.plugin.fixtures import MACHINE_TYPE
from vmtests.plugin.machines import Machines, Ready
from vmtests.plugin.needs import MARKER, Needs
from vmtests.vm import Heartbeat, Image, Start, Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What was left before a restart: a nonce in a new file, a file of the image deleted, a path collected by Nix."""

    nonce: str
    deleted: str
    boot_id: str
    collected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """A machine that was restarted, and what was left on it before."""

    vm: Vm
    marks: Marks


AHEAD = {"modular_start": {"modular"}, "restarting": {"rebooted", "cut"}}
"""Fixtures that begin what takes as long as a boot, and those that wait for it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests that wait for another machine last: it boots beside the others.

    Among workers of pytest-xdist they come first: while one waits, others go on.
    """
    waiting = set().union(*AHEAD.values())
    worker = hasattr(config, "workerinput")
    types = list(dict.fromkeys(map(_machine_type, items)))

    def place(item: pytest.Item) -> tuple[int, bool]:
        return types.index(_machine_type(item)), waiting.isdisjoint(getattr(item, "fixturenames", ())) is worker

    items.sort(key=place)


def _machine_type(item: pytest.Item) -> object:
    """Return the machine type for which a test is there, where there are several: their machines live in turn."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(MACHINE_TYPE)


@pytest.fixture(scope="session", autouse=True)
def _ahead(request: pytest.FixtureRequest, _vmtests_machine_type: str) -> None:
    """Begin, before the first test of a machine type, what its last ones wait for.

    Workers of pytest-xdist share these out.
    """
    del _vmtests_machine_type  # another one begins again
    if hasattr(request.config, "workerinput"):
        return
    promises = request.getfixturevalue("vm_contract").promises
    applies = [
        item for item in request.session.items if promises.issuperset(Needs.of(item.iter_markers(MARKER)).promises)
    ]
    wanted = {name for item in applies for name in getattr(item, "fixturenames", ())}
    for fixture, waiting in AHEAD.items():
        if wanted & waiting:
            # Its failure is told by the tests that need it.
            with suppress(pytest.fail.Exception):
                request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def modular_start(_vmtests_machines: Machines, pytestconfig: pytest.Config) -> Iterator[Start]:
    """A machine whose image has both modules, on its way to ready."""
    with ExitStack() as stack:
        with _vmtests_machines.run.uncaptured():
            lab, reuse = _vmtests_machines.lab, pytestconfig.getoption("vm_reuse")
            image = lab.image("reference", ["debug", "bloat:1G"])
            start = stack.enter_context(lab.start(image, name="modules", watch=Heartbeat(), cache=reuse))
        yield start


@pytest.fixture(scope="session")
def restarting(
    _vmtests_machines: Machines,
    vm_image: Image,
    _vmtests_ready: Ready,
    vm_contract: Contract,
) -> Iterator[dict[str, Restarted]]:
    """Two forks of the booted machine on their way up: one reboots cleanly, the other's power was cut."""
    with ExitStack() as stack:
        with _vmtests_machines.run.uncaptured(), progress.step("a clean reboot and a power cut"):
            lab = _vmtests_machines.lab
            forks = {
                name: stack.enter_context(lab.fork(vm_image, _vmtests_ready.snapshot, name=name, watch=Heartbeat()))
                for name in ("cut", "reboot")
            }
            both = {name: Restarted(vm=vm, marks=_leave_marks(vm, vm_contract, name)) for name, vm in forks.items()}
            forks["reboot"].begin_reboot()
            forks["cut"].run("sync").check()
            store_writer(forks["cut"], vm_contract)("echo unsynced > vmtests-unsynced").check()
            forks["cut"].power_cut()
            forks["cut"].begin_power_on()
        yield both


def _leave_marks(vm: Vm, contract: Contract, name: str) -> Marks:
    nonce = secrets.token_hex(8)
    deleted = vm.run(
        f"cd {contract.store.lower} && find . -type f -path '*/share/*' -size -8k | sort | "
        f"{'head' if name == 'reboot' else 'tail'} -n 1"
    )
    path = deleted.check().stdout.strip().removeprefix("./")
    store_writer(vm, contract)(f"echo {nonce} > vmtests-{name}; rm '{path}'").check()
    collected = vm.run(f"echo {nonce} > /run/gone && nix-store --add /run/gone").check().stdout.strip()
    vm.run(f"nix-store --delete {collected}").check()
    return Marks(nonce=nonce, deleted=path, boot_id=vm.facts.boot_id(), collected=collected)


@pytest.fixture
def as_nix(vm: Vm, vm_contract: Contract) -> Callable[[str], Result]:
    """Run a script as Nix writes to the store: in a mount namespace of its own, remounted writable there.

    The script's working directory is the store (Nix: `LocalStore::makeStoreWritable`).
    """
    return store_writer(vm, vm_contract)


def store_writer(vm: Vm, contract: Contract) -> Callable[[str], Result]:
    """Return a function that runs a script in `vm` with the store writable for that script alone."""

    def write(script: str) -> Result:
        store = contract.store.mount
        inner = f"set -e; mount -o remount,bind,rw {store}; cd {store}; {script}"
        return vm.run(f"unshare --mount --propagation private sh -c {shlex.quote(inner)}")

    return write


@pytest.fixture
def lower_file(vm: Vm, vm_contract: Contract) -> str:
    """A file of the image's store, relative to it: a text file that every system has, and nobody has changed."""
    store = vm_contract.store
    new = f'while read -r file; do [ -e \'{store.upper}\'/"$file" ] || {{ echo "$file"; break; }}; done'
    for which in ("-path '*/share/common-licenses/*'", "-path '*/share/*' -size -64k", "-size -64k"):
        found = vm.run(f"cd {store.lower} && find . -type f -size +1k {which} | sort | {new}")
        if name := found.check().stdout.strip().removeprefix("./"):
            return name
    raise AssertionError("the store has no file of more than 1 KiB and less than 64 that is in the lower layer only")
