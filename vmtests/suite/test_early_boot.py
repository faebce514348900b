"""The machine boots through every stage, and stage 1 makes the store before it switches root."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.vm import Vm

# Identifiers of messages, from systemd's catalog (sd-messages.h).
UNIT_STARTED = "39f53479d3a045ac8e11786248231fbf"
UNIT_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
UNIT_FAILED = "be02cf6855d2428ba40df7e9d022f03d"
UNIT_FAILURE_RESULT = "d9b373ed55a64feb8242e02dbe79a49c"


@dataclass(frozen=True, slots=True)
class Stage1:
    """Times at which the units of stage 1 began to start, and had started, each on one clock."""

    starting: Mapping[str, Sequence[float]]
    started: Mapping[str, Sequence[float]]


@pytest.fixture
def stage1(vm: Vm) -> Stage1:
    """Return what the journal has of stage 1, or the console, where rd.systemd.log_target= has its manager speak."""
    if "rd.systemd.log_target=console" not in vm.facts.cmdline():
        return Stage1(_times(vm, UNIT_STARTING), _times(vm, UNIT_STARTED))
    units = [unit for unit in vm.timeline.units.asked() if unit.stage.before(Stage.USERSPACE)]
    return Stage1(
        {unit.name: (unit.began,) for unit in units if unit.began is not None},
        {unit.name: (unit.ended,) for unit in units if unit.ended is not None and not unit.failed},
    )


def _times(vm: Vm, message: str) -> Mapping[str, Sequence[float]]:
    times: dict[str, list[float]] = {}
    for entry in vm.facts.journal("-b", f"MESSAGE_ID={message}"):
        times.setdefault(entry.fields.get("UNIT", ""), []).append(entry.monotonic)
    return times


def test_ready(vm_boot: Vm) -> None:
    """The boot ends with the verdict that the guest is ready."""
    verdict = vm_boot.verdict
    assert verdict is not None
    assert verdict.ready
    assert verdict.stage is Stage.READY
    assert verdict.cause is None


@pytest.mark.vm(promises="store")
def test_all_stages_in_order(vm_boot: Vm) -> None:
    """Firmware, boot loader, kernel, initrd, switch-root, userspace and ready follow each other."""
    # The boot that got ready: one that the host spoilt may have come before it.
    starts = vm_boot.timeline.starts
    assert list(Stage) == list(starts)
    times = list(starts.values())
    assert times == sorted(times)
    assert times[-1] > 0


@pytest.mark.vm(promises="store")
def test_systemd_is_running_without_jobs(vm: Vm, vm_contract: Contract) -> None:
    """When the guest is called ready, systemd has no job left and is `running`; `degraded` by what may fail only."""
    failed = [unit.name for unit in vm.units.failed]
    assert [] == vm_contract.units.broken(failed)
    assert vm.run("systemctl is-system-running").stdout.strip() == ("degraded" if failed else "running")
    assert vm.run("systemctl list-jobs --no-legend").check().stdout.strip() in {"", "No jobs running."}


@pytest.mark.vm(promises="store")
def test_no_failed_unit_in_stage_1(vm: Vm, vm_contract: Contract) -> None:
    """The journal, which begins in stage 1, knows no unit that failed."""
    ended = vm.facts.journal("-b", f"MESSAGE_ID={UNIT_FAILED}")
    failed = [entry for entry in ended if entry.fields.get("JOB_RESULT") in {"failed", "timeout", "dependency"}]
    failed += vm.facts.journal("-b", f"MESSAGE_ID={UNIT_FAILURE_RESULT}")
    named = {entry.fields.get("UNIT", entry.message) for entry in failed}
    assert [] == vm_contract.units.broken(sorted(named))


@pytest.mark.vm(promises="store")
def test_stage_1_tells_of_its_units(stage1: Stage1, vm_contract: Contract) -> None:
    """Stage 1 has told how it switched root, so that what follows can be proved from what it told."""
    assert len(stage1.starting.get(vm_contract.units.switch_root, ())) == 1


@pytest.mark.vm(promises="store")
def test_store_mounts_happen_in_stage_1_in_order(stage1: Stage1, vm_contract: Contract) -> None:
    """Root, then the read-only store, then the overlay are mounted, all before root is switched."""
    mounted = [stage1.started[mount.unit][0] for mount in vm_contract.stage1_mount]
    assert mounted == sorted(mounted)
    assert mounted[-1] < stage1.starting[vm_contract.units.switch_root][0]


@pytest.mark.vm(promises="store")
def test_upper_is_made_before_the_overlay(stage1: Stage1, vm_contract: Contract) -> None:
    """upperdir and workdir are made in stage 1 before the overlay that needs them is mounted."""
    made = stage1.started[vm_contract.units.make_upper][0]
    assert made < stage1.started[vm_contract.stage1_mount[-1].unit][0]


@pytest.mark.vm(promises="store")
def test_init_runs_from_the_store(vm: Vm, vm_contract: Contract) -> None:
    """The program of process 1 is a file in the store: without the overlay nothing would have booted."""
    assert vm.run("readlink /proc/1/exe").check().stdout.startswith(vm_contract.store.mount + "/")


@pytest.mark.vm(promises="store")
def test_init_on_the_command_line_is_the_booted_system(vm: Vm) -> None:
    """`init=` names the system that /run/booted-system and /run/current-system point to."""
    init = [word.removeprefix("init=") for word in vm.facts.cmdline() if word.startswith("init=")]
    system = vm.run("readlink -f /run/booted-system").check().stdout.strip()
    assert [f"{system}/init"] == init
    assert vm.run("readlink -f /run/current-system").check().stdout.strip() == system


@pytest.mark.vm(promises="store")
def test_kernel_has_no_error(vm: Vm) -> None:
    """The kernel logged nothing of priority emergency, alert or critical."""
    entries = vm.facts.journal("-b", "-k", "-p", "crit")
    assert [entry.message for entry in entries] == []


def _sent(log: bytes) -> bytes:
    """Return a log with each run of a byte as one: QEMU logs a byte again when a slow reader makes it try again."""
    return re.sub(rb"(?s)(.)\1+", rb"\1", log)


@pytest.mark.vm(target="qemu")
@pytest.mark.vm(promises="store")
def test_console_is_kept_byte_for_byte(vm_boot: Vm) -> None:
    """The raw log has every byte that the guest sent, and the lines in console.jsonl carry time and stage."""
    raw = (vm_boot.results / "console.log").read_bytes()
    by_qemu = (vm_boot.results / "ttyS0.log").read_bytes()
    assert _sent(by_qemu).startswith(_sent(raw))
    assert b"BdsDxe" in raw
    lines = [json.loads(line) for line in (vm_boot.results / "console.jsonl").read_text().splitlines()]
    times = [line["t"] for line in lines if line["source"] == "console" and line["boot"] == 1]
    assert times == sorted(times)
    assert {line["stage"] for line in lines} >= {"firmware", "initrd", "userspace"}
