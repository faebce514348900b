"""The guest's journal on the console's clock, of a recorded boot whose /boot never came; and hostile bytes."""

import lzma
import struct
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vmtests.boot import journal
from vmtests.boot.console import Line
from vmtests.boot.replay import explain
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.boot.units import Unit
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.errors import Owner
from vmtests.report.record import read

RECORDED = Path(__file__).with_name("journal-recorded")


def test_journal_of_both_stages_is_on_the_consoles_clock() -> None:
    """A unit that console and journal tell has the same time in both, in stage 1 as afterwards."""
    (boot,) = read(RECORDED).boots
    told = {(unit.name, unit.stage.before(Stage.USERSPACE)): unit for unit in boot.units}
    assert boot.heard
    for name, early, shown in (
        ("sysroot-nix-store.mount", True, "Mounted /sysroot/nix/store."),
        ("systemd-sysctl.service", False, "Finished Apply Kernel Variables."),
    ):
        ended = told[name, early].ended
        assert ended is not None
        (line,) = (line.t for line in boot.lines if line.source == "console" and shown in line.text and line.t > ended)
        assert 0.0 <= line - ended < 1.0


def test_unit_of_both_sources_is_told_once() -> None:
    """What the console calls by its description is the journal's unit; what the journal lost is the console's."""
    (boot,) = read(RECORDED).boots
    names = [(unit.name, unit.stage) for unit in boot.units]
    assert len(names) == len(set(names))
    assert not {"Apply Kernel Variables", "PersistentDisk root"} & {name for name, _ in names}
    assert ("/boot", Stage.USERSPACE) in names


def test_lines_of_the_journal_stand_among_the_consoles() -> None:
    """A warning that never came to the console is there, in its place."""
    (boot,) = read(RECORDED).boots
    assert [line.t for line in boot.lines] == sorted(line.t for line in boot.lines)
    assert any("GPT:2097151 != 8388607" in line.text for line in boot.lines if line.source == "journal")


def test_entry_with_any_bytes_is_read_and_a_cut_end_is_left_out(tmp_path: Path) -> None:
    """A field with a size may hold newlines and terminal sequences; an entry without a clock is none."""
    message = b"one\ntwo=\x1b[2J"
    whole = b"__MONOTONIC_TIMESTAMP=2500000\n__REALTIME_TIMESTAMP=9000000\nMESSAGE\n" + struct.pack("<Q", len(message))
    data = whole + message + b"\nPRIORITY=3\n\nMESSAGE=no clock\n\n" + whole[:-8] + b"\xff" * 8 + b"x"
    (tmp_path / "journal.export").write_bytes(data)
    (entry,) = journal.read(tmp_path / "journal.export")
    assert (entry.monotonic, entry.priority) == (2.5, 3)
    assert entry.text.isprintable()


def test_entry_of_a_million_fields_costs_little() -> None:
    """Only the fields that are wanted are kept, and of their values no more than is shown."""
    head = b"__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=1\n"
    fields = b"".join(b"%x=\n" % number for number in range(60_000))
    tracemalloc.start()
    try:
        (entry,) = journal.parse(head + fields + b"MESSAGE=hello\n_BOOT_ID=" + b"b" * 5000)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert (entry.text, entry.boot) == ("hello", "b" * 300)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_export_in_pieces_is_the_same(emergency: Path, size: int) -> None:
    """Wherever it is cut: in a size, in bytes that may be anything, between two entries."""
    text = b"any\n\nbytes" * 500
    block = b"__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=1\nMESSAGE\n" + struct.pack("<Q", len(text)) + text
    data = (block + b"\n\n") * 3 + (emergency / journal.FILES[-1]).read_bytes()[:20_000]
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert journal.as_console(pieces) == journal.as_console([data])
    assert len(journal.parse(data)) > 3


def test_kernels_own_times_set_the_clock() -> None:
    """The zero of the guest's clock is where the least late of the lines with the kernel's time says."""
    lines = [Line(t=t, text=f"[{k:12.6f}] x", stage=Stage.KERNEL) for t, k in ((9.0, 1.0), (7.2, 2.0), (9.5, 3.0))]
    assert journal.offset([], lines, None) == 5.2


def test_boot_is_known_by_its_date() -> None:
    """Of a journal of two boots each gets its own entries; without a date they are counted."""

    def entry(boot: str, real: float) -> journal.Entry:
        return journal.Entry(monotonic=1.0, real=real, boot=boot, text=boot, priority=6, by="", initrd=False)

    both = [entry("a", 100.0), entry("b", 200.0)]
    assert journal.of_boot([both], 2, datetime.fromtimestamp(150, UTC)) == [both[1]]
    assert journal.of_boot([both], 2, None) == [both[1]]
    assert journal.of_boot([both], 3, None) == []


def test_unit_whose_name_the_console_cuts_is_told_once() -> None:
    """systemd cuts at 80 columns, a start elsewhere than its end; the journal has the whole, if only of its stop."""
    unit, other = "systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service"

    def stopped(name: str, shown: str) -> journal.Entry:
        text = f"Stopped {name} - {shown}."
        return journal.Entry(
            monotonic=9.0, real=9.0, boot="", text=text, priority=6, by="", initrd=True, unit=name, job="stop"
        )

    told = [stopped(unit, "Create Nodes in /dev gracefully"), stopped(other, "Create Nodes in /dev")]
    began = Unit(name="systemd-tmpfiles-setup-de… Nodes in /dev gracefully", stage=Stage.INITRD, began=1.0)
    ended = Unit(
        name="systemd-tmpfiles-setup-dev…ate Nodes in /dev gracefully", stage=Stage.INITRD, ended=2.0, result="done"
    )
    either = Unit(name="systemd-tmpfiles-…", stage=Stage.INITRD, began=3.0)
    one, two = journal.merge([began, ended, either], [], told)
    assert (one.name, one.began, one.ended, one.result) == (unit, 1.0, 2.0, "done")
    assert two.name == "systemd-tmpfiles-…"


def _failed(*evidence: Evidence, ready: bool = False) -> Verdict:
    return Verdict(
        ready=ready,
        stage=Stage.USERSPACE,
        cause=Cause.MOUNT_FAILED,
        sentence="/boot could not be mounted",
        evidence=evidence,
        hint="look at it",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.5,
    )


@pytest.fixture
def emergency(tmp_path: Path) -> Path:
    """Results with the journal of a boot that ended in emergency mode; /boot had an option that vfat does not know."""
    (tmp_path / "diagnosis").mkdir()
    packed = Path(__file__).with_name("emergency.export.xz").read_bytes()
    (tmp_path / journal.FILES[-1]).write_bytes(lzma.decompress(packed))
    return tmp_path


STARTED = datetime.fromisoformat("2026-11-29T13:17:18.547458+00:00")


def test_failed_boot_is_told_with_what_the_unit_that_failed_said(emergency: Path) -> None:
    """mount tells its reason to the journal alone: it becomes evidence, and begins the hint, once."""
    said = "mount: /boot: fsconfig() failed: vfat: Unknown parameter 'nosuchoption'."
    timeline = Timeline(boot=1, started=STARTED)
    console = Evidence(t=70.0, source="console", text="[FAILED] Failed to mount /boot.")
    told = journal.amend(_failed(console), emergency, (), timeline)
    assert f"boot.mount says: {said[:-1]}; look at it" == told.hint
    assert ("boot.mount",) == told.failed_units
    assert [said] == [item.text for item in told.evidence if item.source == "journal"]
    assert [item.t for item in told.evidence] == sorted(item.t for item in told.evidence)
    assert told == journal.amend(told, emergency, (), timeline)


def test_boot_that_got_ready_or_that_the_journal_does_not_know_is_left_as_it_is(emergency: Path) -> None:
    """A failed unit is no reason where the guest got ready; an entry of another boot says nothing of this one."""
    timeline = Timeline(boot=1, started=STARTED)
    assert _failed(ready=True) == journal.amend(_failed(ready=True), emergency, (), timeline)
    later = Timeline(boot=2, started=STARTED + timedelta(hours=1))
    assert _failed() == journal.amend(_failed(), emergency, (), later)


def test_export_is_judged_as_the_text_of_a_journal(emergency: Path) -> None:
    """`Startup finished` is said in emergency mode as well, and makes no boot ready; the reason is told."""
    told = explain([journal.as_console([(emergency / journal.FILES[-1]).read_bytes()])]).verdict
    assert ("failed", Cause.MOUNT_FAILED, Owner.IMAGE) == (told.word, told.cause, told.owner)
    assert "emergency mode" in told.sentence
    assert any("nosuchoption" in item.text for item in told.evidence)


def test_manager_is_heard_where_the_unit_said_nothing() -> None:
    """A program that cannot be started says nothing; what systemd says of it stands there."""

    def entry(text: str, priority: int = 4, **more: str) -> journal.Entry:
        return journal.Entry(
            monotonic=1.0, real=1.0, boot="a", text=text, priority=priority, by="systemd", initrd=False, **more
        )

    heard = [
        entry("x.service: Failed at step EXEC spawning /x: No such file or directory", 3, unit="x.service"),
        entry("Failed to start x.service.", 3, unit="x.service", job="start", result="failed"),
        entry("y.service: Consumed 1s CPU time.", 6, unit="y.service"),
        entry("Finished y.service.", 6, unit="y.service", job="start", result="done"),
    ]
    assert {"x.service": heard[:1]} == journal.last_words(heard)
