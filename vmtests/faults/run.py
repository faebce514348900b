"""Booting a broken image, and holding the verdict against the one that it must get."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from vmtests.boot.follow import Follower
from vmtests.boot.verdict import Verdict
from vmtests.errors import InputError
from vmtests.faults.apply import broken
from vmtests.faults.catalogue import Fault, Host
from vmtests.faults.fitting import seen
from vmtests.host import outputs
from vmtests.qemu.lab import Lab, fitting
from vmtests.qemu.vm import QemuVm
from vmtests.vm import Image

EVIDENCE_SECONDS = 2.0
"""Seconds from the evidence to the verdict that a fault which leaves evidence may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a fault: the verdict, or None and the sentence by which the disk was refused unbooted.

    With `misfit` nothing was booted: the sentence says what the image has not that the fault breaks.
    """

    fault: Fault
    verdict: Verdict | None
    refusal: str
    breaches: tuple[str, ...]
    misfit: str = ""

    @property
    def right(self) -> bool:
        """Whether stage, cause and owner are those of the fault, in time."""
        fault, verdict = self.fault, self.verdict
        if verdict is None:
            return fault.refused
        return (
            not fault.refused
            and (verdict.stage, verdict.cause, verdict.owner) == (fault.stage, fault.cause, fault.owner)
            and (fault.silent or fault.ready or verdict.evidence_to_verdict_s <= EVIDENCE_SECONDS)
            and any(breach.startswith(fault.breach) for breach in (*self.breaches, *([] if fault.breach else [""])))
        )

    @property
    def sentence(self) -> str:
        """What the verdict, or the refusal, says."""
        return self.refusal if self.verdict is None else self.verdict.sentence

    def to_json(self) -> dict[str, object]:
        """Return the outcome as `vmtests faults --json` prints it."""
        fault, verdict = self.fault, self.verdict
        expected = {"verdict": "refused" if fault.refused else "ready" if fault.ready else "failed"}
        got: dict[str, object] = {"verdict": "refused"}
        if verdict is not None:
            got = {"verdict": "ready" if verdict.ready else "failed", **_place(verdict)}
        return {
            "name": fault.name,
            "area": fault.area,
            "expected": {**expected, **({} if fault.refused else _place(fault))},
            "got": got,
            "right": self.right,
            "silent": fault.silent,
            "evidence_to_verdict_s": None if verdict is None else round(verdict.evidence_to_verdict_s, 3),
            "sentence": self.sentence,
            "inspection": list(self.breaches),
        }


def _place(judged: Fault | Verdict) -> dict[str, object]:
    names = {"stage": judged.stage, "cause": judged.cause, "owner": judged.owner}
    return {name: None if value is None else str(value) for name, value in names.items()}


class _Actions:
    """Does what happens on the host, once the boot has come to its stage."""

    def __init__(self, actions: Sequence[Host]) -> None:
        self._due = list(actions)
        self.vm: QemuVm | None = None

    def __call__(self, follower: Follower) -> None:
        """Do what is due."""
        for action in [action for action in self._due if not follower.stage.before(action.stage)]:
            self._due.remove(action)
            if self.vm is not None and self.vm.qemu.alive:
                self.vm.qemu.signal(signal.Signals[f"SIG{action.signal}"])


class Runner:
    """Runs faults against copies of one image."""

    def __init__(self, image: Image, lab: Lab) -> None:
        self._image = image
        self._seen = seen(image.inspection)
        self._lab = lab
        self._machines: set[QemuVm] = set()
        self._ending = threading.Event()

    def run(self, fault: Fault) -> Outcome:
        """Boot a broken copy of the image until its verdict; the results go below the fault's name."""
        lab = self._lab
        with contextlib.ExitStack() as stack:
            try:
                made = stack.enter_context(
                    broken(fault, self._image.path, lab.host.scratch, self._seen, lab.host.toolbox)
                )
            except InputError as error:
                return Outcome(fault=fault, verdict=None, refusal="", breaches=(), misfit=error.message)
            try:
                image = lab.images.find(str(made.disk), contract=self._image.contract)
            except InputError as error:
                sentence = error.message.replace(str(made.disk), "the disk")
                return Outcome(fault=fault, verdict=None, refusal=sentence, breaches=())
            found = image.inspection
            # With one good copy of its table somebody else's disk boots: that is a note.
            told = found.breaches or tuple(check for check in found.checks if fault.breach and check.sentence)
            breaches = tuple(map(str, told))
            actions = _Actions(made.actions)
            # The good image's machine: without its ESP a disk that a BIOS starts, too, would be for a BIOS only.
            hardware = fitting(made.hardware, self._image)
            with lab.machine(image, hardware, name=fault.name, watch=actions) as vm:
                actions.vm = vm
                self._machines.add(vm)
                try:
                    verdict = self._follow(vm)
                finally:
                    self._machines.discard(vm)
            _keep(image, verdict, lab.results / fault.name)
        return Outcome(fault=fault, verdict=verdict, refusal="", breaches=breaches)

    def run_all(self, faults: Sequence[Fault], *, jobs: int = 1) -> Iterator[Outcome]:
        """Run faults, `jobs` at a time, and give each outcome as it comes."""
        assert self._lab.host.accelerator  # found out once, before any thread asks
        with ThreadPoolExecutor(jobs) as pool:
            futures: list[Future[Outcome]] = []
            try:
                futures.extend(pool.submit(self.run, fault) for fault in faults)
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self._ending.set()
                # The pool waits for its threads, and they for a verdict: a machine that is gone has one.
                for vm in tuple(self._machines):
                    vm.qemu.signal(signal.SIGKILL)
                raise
            finally:
                for future in futures:
                    future.cancel()

    def _follow(self, vm: QemuVm) -> Verdict:
        if self._ending.is_set():
            vm.qemu.signal(signal.SIGKILL)
        return vm.wait_verdict()


def _keep(image: Image, verdict: Verdict, results: Path) -> None:
    for name, data in (("inspection", image.inspection.to_json()), ("verdict", verdict.to_json())):
        outputs.write(results / f"{name}.json", json.dumps(data, indent=2) + "\n", "--results")
