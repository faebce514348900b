"""The optional modules: early boot on the console, and a store of any size."""

import json
from collections.abc import Iterator

import pytest

from vmtests.contract import Contract
from vmtests.plugin.machines import Machines
from vmtests.sizes import GIB
from vmtests.vm import Start, Vm

pytestmark = pytest.mark.vm(promises="store")


@pytest.fixture(scope="session")
def modular(modular_start: Start, _vmtests_machines: Machines) -> Vm:
    """The machine with both modules, booted once for this file."""
    with _vmtests_machines.run.uncaptured():
        modular_start.wait()
    return modular_start.vm


def test_debug_shows_the_initrd_at_debug_level(modular: Vm) -> None:
    """With `debug` the console tells of stage 1 what systemd only logs at debug level: jobs, and why they wait."""
    text = "\n".join(line for line in _console(modular, "initrd"))
    assert "Installed new job" in text
    assert "About to execute" in text


def test_debug_names_the_overlays_mount_on_the_console(modular: Vm, vm_contract: Contract) -> None:
    """With `debug` the console names the unit of the overlay and its change to mounted, in stage 1."""
    unit = vm_contract.stage1_mount[-1].unit
    assert any(f"{unit}: Changed mounting-done -> mounted" in line for line in _console(modular, "initrd"))


def test_debug_shell_is_on_the_second_port(modular: Vm) -> None:
    """With `debug` a root shell waits on the second serial port, from stage 1 on."""
    log = modular.second_console
    assert b"bash-5" in log or b"root@" in log


def test_bloat_has_its_size(modular: Vm, vm_contract: Contract) -> None:
    """With `bloat:1G` the store holds paths of one GiB in total, besides those of the system."""
    command = f"du --bytes --summarize --total {vm_contract.store.lower}/*-bloat-* | tail -n 1"
    size = int(modular.run(command).check().stdout.split()[0])
    assert GIB <= size <= GIB * 1.02


def test_bloat_is_registered_and_sound(modular: Vm) -> None:
    """The paths of `bloat` are valid, and one of them hashes to what the database says."""
    paths = [path.path for path in modular.facts.valid_paths() if "-bloat-" in path.path]
    assert len(paths) == 8
    modular.run(f"nix-store --verify-path {paths[0]}", timeout=600).check()


def test_contract_holds_with_modules(modular: Vm, vm_contract: Contract) -> None:
    """With both modules the store is mounted as the contract says, and no unit has failed."""
    mounts = modular.mounts
    assert mounts.top(vm_contract.store.lower).fstype == "erofs"
    assert [mount.fstype for mount in mounts.at(vm_contract.store.mount)] == ["overlay", "overlay"]
    assert set(vm_contract.store.bind_options) <= set(mounts.top(vm_contract.store.mount).options)
    assert [unit.name for unit in modular.units.failed] == []


def _console(vm: Vm, stage: str) -> Iterator[str]:
    for line in (vm.results / "console.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] == stage and entry["source"] == "console":
            yield entry["text"]
