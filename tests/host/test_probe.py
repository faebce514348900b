"""Whether an accelerator works is told by a guest."""

import sys

import pytest

from vmtests.host import probe, tools
from vmtests.host.probe import Outcome

STAYS_UP = "import signal; signal.pause()"
"""A QEMU that does not end by itself; the probe ends it."""


def python(code: str) -> list[str]:
    """Return a command line that runs `code` in QEMU's place."""
    return [sys.executable, "-c", code]


def test_guest_runs() -> None:
    """The guest answers, on a machine of two processors."""
    outcome = probe.run_guest(tools.find(), "tcg", "max", 2)
    assert outcome.works
    assert 0 < outcome.seconds < probe.PROBE_SECONDS


def test_guest_answers() -> None:
    """KVM works when the guest's own answer is QEMU's exit status."""
    assert probe.watch(python("import sys; sys.exit(85)"), 10).works


@pytest.mark.parametrize(
    "word",
    [
        "KVM internal error. Suberror: 1",
        "error: kvm run failed Bad address",
        "KVM: entry failed, hardware error 0x80000021",
        "KVM: unknown exit, hardware reason 31",
    ],
)
def test_dead_vcpu(word: str) -> None:
    """A vCPU that died is seen in QEMU's words, without waiting for QEMU, which stays up."""
    code = f"import sys; sys.stderr.write('{word}\\nRAX=0\\n'); {STAYS_UP}"
    outcome = probe.watch(python(code), 30)
    assert Outcome(works=False, reason=f"the vCPU died at once ({word})") == outcome


def test_no_answer() -> None:
    """A guest that says nothing in time counts as one that does not run."""
    outcome = probe.watch(python(STAYS_UP), 0.05)
    assert Outcome(works=False, reason="a guest of one sector gave no answer in 0.05 s") == outcome


def test_silent_qemu_with_closed_stderr() -> None:
    """QEMU that closes its standard error and stays up is not waited for longer than the limit."""
    outcome = probe.watch(python(f"import os; os.close(2); {STAYS_UP}"), 0.3)
    assert Outcome(works=False, reason="a guest of one sector gave no answer in 0.3 s") == outcome


def test_other_status() -> None:
    """QEMU's own failure is told in its last words, made printable."""
    outcome = probe.watch(python("import sys; sys.exit('failed\\n\\x1b[1mno MSR\\n')"), 10)
    assert Outcome(works=False, reason="QEMU ended with status 1: \\x1b[1mno MSR") == outcome


def test_no_program() -> None:
    """A program that is not there is an outcome, not a traceback."""
    assert probe.watch(["/nowhere/qemu"], 1).reason == "/nowhere/qemu cannot be run: No such file or directory"


def test_endless_words() -> None:
    """However much QEMU writes, the probe ends in time."""
    assert not probe.watch(python("import sys\nwhile True: sys.stderr.write('x' * 9999)"), 0.3).works
