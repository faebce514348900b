"""The pytest plugin: options, fixtures and the results of a run. What it does is done by `vmtests.qemu.lab`."""

import argparse
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.junitxml import LogXML
from _pytest.outcomes import Failed

from vmtests import contract as contracts
from vmtests.boot.stages import Stage
from vmtests.cli import terminal
from vmtests.contract import Contract
from vmtests.errors import InputError, VmtestsError
from vmtests.gce.lab import DEFAULT_MACHINE, SUITE_LIFETIME, GceLab
from vmtests.gce.settings import Settings
from vmtests.host import results
from vmtests.machine.argv import Hardware
from vmtests.qemu.lab import REWINDS, Lab
from vmtests.qemu.snapshots import Snapshot
from vmtests.vm import BootError, Heartbeat, Image, Laboratory, Vm

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController

Uncaptured = Callable[[], contextlib.AbstractContextManager[None]]
"""Returns a context for what takes long: its progress is seen, and an error of vmtests is told by its sentence."""

_RESULTS = pytest.StashKey[Path]()
_OTHERS = pytest.StashKey[list[pytest.Item]]()
_AT_HAND = pytest.StashKey[list[Vm]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the image, the machine and the results."""
    group = parser.getgroup("vmtests", "booting disk images")
    group.addoption(
        "--vm-image",
        default="reference",
        metavar="reference|nix[:FLAKE#ATTR]|PATH",
        help="the image under test (default: %(default)s)",
    )
    group.addoption(
        "--vm-module",
        action="append",
        default=[],
        metavar="debug|bloat[:SIZE]",
        help="a module built into the reference image; may be given several times",
    )
    group.addoption(
        "--vm-accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="the accelerator (default: %(default)s)",
    )
    group.addoption(
        "--vm-cache",
        action=argparse.BooleanOptionalAction,
        default=not os.environ.get("CI"),
        help="go on from the machine that an earlier run booted (default: yes, but not where CI is set)",
    )
    group.addoption(
        "--vm-fresh",
        choices=("fork", "boot"),
        default="fork",
        help="how a test gets a machine of its own (default: %(default)s)",
    )
    group.addoption(
        "--vm-from",
        choices=[str(stage) for stage in REWINDS],
        metavar="STAGE",
        help="begin the boot where this stage begins, which the first such run keeps: %(choices)s",
    )
    group.addoption(
        "--vm-target", choices=("qemu", "gce"), default="qemu", help="where machines run (default: %(default)s)"
    )
    group.addoption("--gce-project", metavar="ID", help="the project (default: that of the credentials)")
    group.addoption(
        "--gce-zone", action="append", default=[], metavar="ZONE[,ZONE…]", help="zones, in the order to be tried"
    )
    group.addoption("--gce-bucket", metavar="NAME", help="the bucket for uploads (default: PROJECT-vmtests)")
    group.addoption("--gce-endpoint", metavar="URL", help="an emulator on this host, as it prints it")
    group.addoption(
        "--gce-machine",
        default=DEFAULT_MACHINE,
        metavar="TYPE[,TYPE…]",
        help="machine types; the tests run on one after the other (default: %(default)s)",
    )
    group.addoption(
        "--vm-console",
        action="store_true",
        help="attach the terminal to the guest's console when a test fails, before its machine ends; Ctrl-] goes on",
    )
    group.addoption("--vm-results", type=Path, metavar="DIR", help="the directory of the results, used as it is")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker; what ends a process politely ends instances that cost money, too."""
    config.stash[_AT_HAND] = []
    if config.getoption("vm_console"):
        if config.getoption("numprocesses", None) is not None:
            raise pytest.UsageError("--vm-console needs one process, without --numprocesses")
        try:
            with terminal.own():
                pass
        except VmtestsError as error:
            raise pytest.UsageError(str(error)) from error
    config.addinivalue_line("markers", "vm_target(name): a test for machines of one target only; docs/gce.md says why")
    if config.getoption("vm_target") == "gce" and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are for another target."""
    target = config.getoption("vm_target")
    others = [item for item in items if _target(item) not in {None, target}]
    if others:
        config.stash[_OTHERS] = others
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def _machine_types(config: pytest.Config) -> list[str]:
    return list(dict.fromkeys(filter(None, config.getoption("gce_machine").split(","))))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the tests on every machine type that was asked for, each with machines of its own."""
    types = _machine_types(metafunc.config)
    if metafunc.config.getoption("vm_target") == "gce" and len(types) > 1 and "gce_machine" in metafunc.fixturenames:
        metafunc.parametrize("gce_machine", types, indirect=True, scope="session")


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _target(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("vm_target")
    return None if marker is None else str(marker.args[0])


class _Junit(LogXML):
    """junit.xml in the results, where there are any."""

    def pytest_sessionfinish(self) -> None:
        if Path(self.logfile).parent.is_dir():
            super().pytest_sessionfinish()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if Path(self.logfile).is_file():
            super().pytest_terminal_summary(terminalreporter, config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin a directory of results, with junit.xml, when a test that was chosen needs a machine."""
    config = session.config
    if config.option.collectonly or not any("lab" in _fixtures(item) for item in session.items):
        return
    wanted: Path | None = config.getoption("vm_results")
    try:
        if (worker := getattr(config, "workerinput", None)) is not None:
            run = Path(worker["vmtests_results"])
            config.stash[_RESULTS] = results.part(run, worker["workerid"], wanted=wanted is not None)
            return
        config.stash[_RESULTS] = results.new_directory(wanted)
    except VmtestsError as error:
        raise pytest.UsageError(str(error)) from error
    _begin_junit(config)


def _begin_junit(config: pytest.Config) -> None:
    if not config.option.xmlpath:
        log = _Junit(str(config.stash[_RESULTS] / "junit.xml"), None, "vmtests", "all", "total", "xunit2")
        config.pluginmanager.register(log, "vmtests-junit")
        log.pytest_sessionstart()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "WorkerController") -> None:
    """Tell a worker of pytest-xdist where the results of the run are; it makes them when it needs a machine."""
    config = node.config
    if _RESULTS not in config.stash:
        config.stash[_RESULTS] = results.planned(config.getoption("vm_results"), node.workerinput["testrunuid"][:8])
        _begin_junit(config)
    node.workerinput["vmtests_results"] = str(config.stash[_RESULTS])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "Scheduling | None":
    """Give each worker whole files, in their order: the tests of a file share its machines."""
    from xdist.scheduler import LoadFileScheduling

    if config.getvalue("dist") != "load":
        return None
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the results are, and which tests were for another target."""
    for item in config.stash.get(_OTHERS, []):
        terminalreporter.write_line(f"only for --vm-target={_target(item)}: {item.nodeid}")
    if (directory := config.stash.get(_RESULTS, None)) is not None and directory.is_dir():
        terminalreporter.write_line(f"results: {directory}")


class _Failed(Failed):
    """A fixture's failure, which pytest raises again for every test that needs the fixture."""

    see_above = "no machine: see above"
    told = False


class _BootFailed(_Failed):
    see_above = "boot failed: see above"


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Report an error of vmtests as its sentence; the traceback would be of the framework."""
    try:
        yield
    except BootError as error:
        raise _BootFailed(error.report, pytrace=False) from None
    except VmtestsError as error:
        raise _Failed(str(error), pytrace=False) from None


@contextlib.contextmanager
def _at_hand(config: pytest.Config, vm: Vm) -> Iterator[None]:
    """Have a machine at hand for --vm-console as long as it is there, also when it does not get ready."""
    config.stash[_AT_HAND].append(vm)
    try:
        yield
    except _Failed as error:
        _visit(config, str(error.msg))
        raise
    finally:
        config.stash[_AT_HAND].remove(vm)


def _visit(config: pytest.Config, why: str) -> None:
    """With --vm-console attach the terminal to the machine that was made last."""
    if not config.getoption("vm_console") or not (machines := config.stash[_AT_HAND]):
        return
    manager = config.pluginmanager.getplugin("capturemanager")
    with contextlib.nullcontext() if manager is None else manager.global_and_fixture_disabled():
        terminal.visit(machines[-1], why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the failure of a fixture once; each further test that needed it is an error of one line."""
    report = yield
    if call.excinfo is not None and report.failed and call.when != "teardown" and "lab" in _fixtures(item):
        _visit(item.config, call.excinfo.exconly())
    if call.excinfo is not None and isinstance(error := call.excinfo.value, _Failed):
        if error.told:
            report.longrepr = error.see_above
        error.told = True
    return report


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The image contract."""
    return contracts.default()


@pytest.fixture(scope="session")
def gce_machine(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> str:
    """The machine type of instances on Compute Engine."""
    return str(getattr(request, "param", "") or next(iter(_machine_types(pytestconfig)), DEFAULT_MACHINE))


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, gce_machine: str) -> Iterator[Laboratory]:
    """What makes images and machines, on this host or on Compute Engine, and the directory for results.

    Each of several machine types has a directory of its own there.
    """
    directory, option = pytestconfig.stash[_RESULTS], pytestconfig.getoption
    run = getattr(pytestconfig, "workerinput", {}).get("testrunuid", "")
    if option("vm_target") == "qemu":
        with Lab(directory, accelerator=option("vm_accel"), run=run) as lab:
            yield lab
        return
    with _one_line():
        if option("vm_from") is not None:
            raise InputError("--vm-from needs machines that can be kept: --vm-target=qemu")
        settings = Settings.find(
            project=option("gce_project"),
            zones=option("gce_zone"),
            bucket=option("gce_bucket"),
            endpoint=option("gce_endpoint"),
        )
    if len(_machine_types(pytestconfig)) > 1:
        directory /= gce_machine
    with GceLab(directory, settings, machine=gce_machine, lifetime=SUITE_LIFETIME, run=run) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def image(lab: Laboratory, pytestconfig: pytest.Config, uncaptured: Uncaptured) -> Image:
    """The image under test, built unless it is in the cache, and inspected."""
    with uncaptured():
        return lab.image(pytestconfig.getoption("vm_image"), pytestconfig.getoption("vm_module"))


@pytest.fixture(scope="session")
def ready(
    lab: Laboratory,
    image: Image,
    pytestconfig: pytest.Config,
    uncaptured: Uncaptured,
) -> Iterator[tuple[Vm, Snapshot | None]]:
    """The machine of `boot`, and the snapshot of it before any test has touched it."""
    with contextlib.ExitStack() as stack:
        with uncaptured():
            if (stage := pytestconfig.getoption("vm_from")) is not None and isinstance(lab, Lab):
                vm = stack.enter_context(lab.rewind(image, Stage(stage), watch=Heartbeat()))
                stack.enter_context(_at_hand(pytestconfig, vm))
                both: tuple[Vm, Snapshot | None] = vm, vm.snapshot(lab.scratch / f"from-{stage}")
            else:
                cache = pytestconfig.getoption("vm_cache")
                start = stack.enter_context(lab.start(image, watch=Heartbeat(), cache=cache))
                stack.enter_context(_at_hand(pytestconfig, start.vm))
                both = start.vm, start.wait()
        yield both


@pytest.fixture(scope="session")
def boot(ready: tuple[Vm, Snapshot | None]) -> Vm:
    """One followed cold boot of the image under test, which got ready; it fails once, with the verdict.

    With `--vm-cache` it is that of an earlier run, if image, machine and vmtests are the same.
    """
    return ready[0]


@pytest.fixture(scope="session")
def snapshot(ready: tuple[Vm, Snapshot | None]) -> Snapshot | None:
    """The machine of `boot` at rest, for `lab.fork`; None where machines are not forked."""
    return ready[1]


@pytest.fixture
def fresh_vms(
    lab: Laboratory,
    image: Image,
    snapshot: Snapshot | None,
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
    uncaptured: Uncaptured,
) -> Iterator[Callable[[int], list[Vm]]]:
    """A function that returns so many pristine booted machines for this test alone."""
    with contextlib.ExitStack() as stack:
        count = itertools.count(1)

        def make(number: int) -> list[Vm]:
            names = [f"{request.node.name}-{next(count)}".replace("/", "_") for _ in range(number)]
            with uncaptured():
                forking = lab.forks and pytestconfig.getoption("vm_fresh") == "fork"
                machines: list[Vm] = []
                for name in names:
                    machine = (
                        lab.fork(image, snapshot, name=name)
                        if forking
                        else lab.machine(image, name=name, watch=Heartbeat())
                    )
                    machines.append(stack.enter_context(machine))
                    stack.enter_context(_at_hand(pytestconfig, machine))
                if not forking:
                    for machine in machines:
                        machine.wait_ready()
                return machines

        yield make


@pytest.fixture
def fresh_vm(fresh_vms: Callable[[int], list[Vm]]) -> Vm:
    """A pristine booted machine for this test alone, forked from the machine of `boot`."""
    return fresh_vms(1)[0]


@pytest.fixture
def vm(boot: Vm) -> Vm:
    """The machine of `boot`, shared by all tests: leave it as you found it."""
    if (failure := boot.follower.failure_after_ready) is not None:
        pytest.fail(f"the machine failed in an earlier test: {failure.sentence}", pytrace=False)
    return boot


@pytest.fixture
def cold_vm(
    lab: Laboratory,
    image: Image,
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
    uncaptured: Uncaptured,
) -> Iterator[Callable[..., Vm]]:
    """A factory of machines of this test's own, booted cold.

    `cold_vm(hardware=…, modules=[…], ready=True)`; modules need the reference image. With `ready=False` the
    machine is handed out as soon as it is powered on.
    """
    with contextlib.ExitStack() as stack:
        count = 0

        def make(hardware: Hardware | None = None, modules: list[str] | None = None, *, ready: bool = True) -> Vm:
            nonlocal count
            count += 1
            name = f"{request.node.name}-{count}".replace("/", "_")
            with uncaptured():
                chosen = image if modules is None else lab.image("reference", modules)
                machine = stack.enter_context(lab.machine(chosen, hardware, name=name, watch=Heartbeat()))
                stack.enter_context(_at_hand(pytestconfig, machine))
                if ready:
                    machine.wait_ready()
            return machine

        yield make


@pytest.fixture(scope="session")
def uncaptured(pytestconfig: pytest.Config) -> Uncaptured:
    """A context in which output is not captured, and an error of vmtests is a failure of one sentence."""
    manager = pytestconfig.pluginmanager.getplugin("capturemanager")

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with contextlib.nullcontext() if manager is None else manager.global_and_fixture_disabled(), _one_line():
            yield

    return context
