"""The pytest plugin. Where no test asks for one of its fixtures it changes nothing, and imports nothing heavy."""

from pathlib import Path

import pytest

from vmtests.errors import VmtestsError
from vmtests.host import results
from vmtests.plugin import options, workers
from vmtests.plugin.fixtures import (
    MACHINE_TYPE,
    NEEDS,
    OURS,
    PROMISED,
    _vmtests_machine_type,
    _vmtests_machines,
    _vmtests_needs,
    _vmtests_promised,
    _vmtests_ready,
    cold_vm,
    fresh_vm,
    fresh_vms,
    vm,
    vm_boot,
    vm_contract,
    vm_image,
)
from vmtests.plugin.needs import HELP, MARKER, Needs

# pytest finds here what it calls.
__all__ = [
    "_vmtests_machine_type",
    "_vmtests_machines",
    "_vmtests_needs",
    "_vmtests_promised",
    "_vmtests_ready",
    "cold_vm",
    "fresh_vm",
    "fresh_vms",
    "vm",
    "vm_boot",
    "vm_contract",
    "vm_image",
]

_OTHERS = pytest.StashKey[list[str]]()
_KNOWN = pytest.StashKey[list[Needs]]()


def is_ours(item: pytest.Item) -> bool:
    """Whether a test needs what makes machines."""
    return OURS in getattr(item, "fixturenames", ())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the image, the machine and the results."""
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Settle the options, and tell the marker."""
    options.settle(config)
    config.addinivalue_line("markers", HELP)
    if config.getoption("vm_console"):
        _check_console(config)
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(workers.Workers(config), "vmtests-workers")


def _check_console(config: pytest.Config) -> None:
    from vmtests.cockpit.run import own

    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--vm-console needs one process, without --numprocesses")
    try:
        with own():
            pass
    except VmtestsError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the machine that it needs, on every machine type that was asked for."""
    if OURS not in metafunc.fixturenames:
        return
    config = metafunc.config
    types = options.machine_types(config)
    if config.getoption("vm_target") == "gce" and len(types) > 1:
        metafunc.parametrize(MACHINE_TYPE, types, indirect=True, scope="session")
    try:
        needs = Needs.of(metafunc.definition.iter_markers(MARKER)).machine
    except ValueError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from error
    if needs != Needs() and NEEDS in metafunc.fixturenames:
        # One object for all that need the same: pytest compares by identity whether a fixture is to be set up anew.
        known = config.stash.setdefault(_KNOWN, [])
        if needs not in known:
            known.append(needs)
        same = known[known.index(needs)]
        metafunc.parametrize(NEEDS, [same], indirect=True, scope="session", ids=[pytest.HIDDEN_PARAM])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out our tests that are for another target, and bring those together that need the same machine."""
    places = [place for place, item in enumerate(items) if is_ours(item)]
    if not places:
        return
    needs = {}
    for item in (items[place] for place in places):
        try:
            needed = needs[item] = Needs.of(item.iter_markers(MARKER))
        except ValueError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from error
        if needed.promises and PROMISED not in item.fixturenames:  # type: ignore[attr-defined]
            item.fixturenames.insert(0, PROMISED)  # type: ignore[attr-defined]
        _check_given(item, needed)
    known = [Needs(), *config.stash.get(_KNOWN, [])]
    ordered = sorted(needs, key=lambda item: (*known, needs[item].machine).index(needs[item].machine))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item
    others = [item for item in needs if needs[item].target not in {None, config.getoption("vm_target")}]
    if others:
        config.stash[_OTHERS] = [f"only for --vm-target={needs[item].target}: {item.nodeid}" for item in others]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def _check_given(item: pytest.Item, needed: Needs) -> None:
    """Raise UsageError where a marker came too late: the machine is chosen when a function is collected."""
    given = getattr(getattr(item, "callspec", None), "params", {}).get(NEEDS, Needs())
    if NEEDS in item.fixturenames and given != needed.machine:  # type: ignore[attr-defined]
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.vm counts on functions, and on classes and modules of such; "
            "not in pytest.param(), on a unittest.TestCase, or where it is added later"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin a directory of results when a test that was chosen needs a machine."""
    config = session.config
    ours = [number for number, item in enumerate(session.items) if is_ours(item)]
    shown = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
    if not ours or any(getattr(config.option, name, False) for name in shown):
        return
    from vmtests.plugin.machines import RUN
    from vmtests.plugin.run import Run

    wanted = config.getoption("vm_results")
    try:
        directory = workers.results_of_worker(config)
        if directory is None:
            directory = results.new_directory(None if wanted is None else Path(wanted))
        else:
            workers.tell_controller(config, ours)
    except VmtestsError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[RUN] = Run.begin(config, directory)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which of our tests were for another target."""
    for line in config.stash.get(_OTHERS, []):
        terminalreporter.write_line(line)
