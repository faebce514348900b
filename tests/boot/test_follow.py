"""Following a boot."""

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from vmtests import contract
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import GuestError, Owner
from vmtests.testing import ManualClock
from vmtests.testing.consoles import READY_TOKEN

from .consoles import GOOD_BOOT, IN_INITRD, NIXOS_BOOT, PANIC, drip, failed

Make = Callable[..., Follower]


class TestReady:
    """When a boot is ready."""

    @pytest.mark.parametrize("console", [GOOD_BOOT, NIXOS_BOOT], ids=["debian", "nixos"])
    def test_a_good_boot_is_ready(self, follower: Follower, clock: ManualClock, console: bytes) -> None:
        """A good boot goes through all seven stages in order, in either spelling."""
        drip(follower, clock, console)
        verdict = follower.wait_verdict()
        assert (
            verdict.ready,
            verdict.stage,
            verdict.cause,
            verdict.owner,
        ) == (True, Stage.READY, None, None)
        assert list(Stage) == list(verdict.seconds)
        starts = list(follower.timeline.starts.values())
        assert sorted(starts) == starts

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_how_reads_cut_does_not_matter(self, follower: Follower, size: int) -> None:
        """A boot in reads of any size has the same verdict."""
        for start in range(0, len(GOOD_BOOT), size):
            follower.feed(GOOD_BOOT[start : start + size])
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_a_running_job_holds_ready_back(self, follower: Follower, clock: ManualClock) -> None:
        """The target alone is not ready: a job that runs has to end."""
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        assert follower.verdict is None
        clock.advance(1.0)
        follower.feed(b"[  OK  ] Started ssh.service - OpenBSD Secure Shell server.\n")
        assert follower.verdict is not None
        assert "no start job is left" in follower.verdict.sentence
        assert follower.timeline.starts[Stage.READY] == 1.0

    def test_a_lost_result_line_is_settled_by_silence(self, make: Make, clock: ManualClock) -> None:
        """A job whose end was not seen holds ready back until the console was silent for the settle time."""
        follower = make(budgets=Budgets(scale=4.0))
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        verdict = follower.wait_verdict()
        assert (verdict.ready, clock.waits, follower.timeline.starts[Stage.READY]) == (True, [8.0], 8.0)

    @pytest.mark.parametrize(
        ("unit", "line", "sentence"),
        [
            ("multi-user.target", b"", "multi-user.target was reached and no start job is left"),
            (
                "multi-user.target",
                b"Startup finished in 1s (kernel) + 2s (userspace) = 3s.\n",
                "multi-user.target was",
            ),
            ("ssh.service", b"", "ssh.service was reached and no start job is left"),
            ("graphical.target", b"", ""),
            ("graphical.target", b"[  OK  ] Reached target Graphical Interface.\n", "graphical.target was reached"),
            ("app.target", b"[  OK  ] Reached target app.target - Our application.\n", "app.target was reached"),
            ("app.target", b"         Starting app.target - Our application...\n", ""),
            (
                "app.target",
                b"Startup finished in 1s (kernel) + 2s (userspace) = 3s.\n",
                "systemd has finished starting",
            ),
        ],
    )
    def test_the_contract_says_what_has_to_be_reached(self, make: Make, unit: str, line: bytes, sentence: str) -> None:
        """A boot is ready with the contract's unit, whichever it is, and the sentence names that one."""
        promised = contract.from_data({"units": {"ready": unit}}, "here")
        follower = make(knowledge=Knowledge(promised, None))
        follower.feed(GOOD_BOOT + line)
        assert (follower.verdict.sentence if follower.verdict else "")[: len(sentence) or 1] == sentence

    def test_a_guest_says_that_the_contracts_unit_is_reached(self, make: Make) -> None:
        """The sentence names the unit that the guest was to wait for."""
        promised = contract.from_data({"units": {"ready": "app.target"}}, "here")
        follower = make(knowledge=Knowledge(promised, None), ready_token=READY_TOKEN)
        follower.feed(GOOD_BOOT + f"{READY_TOKEN} running\n".encode())
        assert follower.verdict is not None
        assert "app.target was reached and no start job is left; systemd is running" == follower.verdict.sentence

    def test_output_delays_the_settling(self, follower: Follower, clock: ManualClock) -> None:
        """Every line that comes begins the silence anew."""
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        clock.at(1.5, lambda: follower.feed(b"still here\n"))
        follower.wait_verdict()
        assert follower.timeline.starts[Stage.READY] == 3.5

    def test_jobs_of_the_initrd_do_not_count(self, follower: Follower) -> None:
        """The manager of the running system starts with no jobs."""
        follower.feed(NIXOS_BOOT.replace(b"[  OK  ] Finished NixOS Activation.\n", b""))
        assert follower.verdict is not None
        assert "no start job is left" in follower.verdict.sentence

    def test_a_failed_unit_is_no_failed_boot(self, follower: Follower) -> None:
        """In the running system a unit may fail; the boot is ready all the same."""
        target = b"[  OK  ] Reached target Multi"
        extra = b"[FAILED] Failed to start x.service - X.\n[FAILED] Failed to mount /data.\n"
        follower.feed(NIXOS_BOOT.replace(target, extra + target))
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_a_login_prompt_is_not_ready(self, follower: Follower) -> None:
        """Ready is a target reached, not somebody who asks for a name."""
        follower.feed(NIXOS_BOOT.replace(b"[  OK  ] Reached target Multi-User System.\n", b"nixos login: "))
        assert follower.verdict is None


class TestPowerOn:
    """Where time begins."""

    def test_from_power_on(self, follower: Follower, clock: ManualClock) -> None:
        """The firmware starts at power-on when that is known."""
        clock.advance(2.0)
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
        assert follower.timeline.starts[Stage.BOOTLOADER] == 2.0

    def test_from_the_first_byte(self, make: Make, clock: ManualClock) -> None:
        """The firmware starts with its first byte when nobody knows of power-on."""
        follower = make(power_on=None)
        clock.advance(30.0)
        follower.feed(b"\n")
        clock.advance(2.0)
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
        assert follower.timeline.starts[Stage.BOOTLOADER] == 2.0


class TestProgress:
    """Silence."""

    def test_silence(self, follower: Follower, clock: ManualClock) -> None:
        """A stage that is silent for its budget is stuck; the verdict names it and its last line."""
        clock.at(10.0, lambda: follower.feed(IN_INITRD))
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.NO_PROGRESS, Stage.INITRD)
        assert (
            verdict.sentence == "stage initrd made no progress for 30 s; the last line, 30 s old, is "
            '"Booting initrd of Debian..."'
        )
        assert clock.now - 1000 == 40.0

    def test_limit_of_the_whole_boot(self, make: Callable[..., Follower], clock: ManualClock) -> None:
        """A boot that is not ready when the time is up that it was given is nobody's fault."""
        follower = make(budgets=Budgets(whole=25.0))
        clock.at(10.0, lambda: follower.feed(IN_INITRD))
        verdict = failed(follower)
        assert (verdict.cause, verdict.owner, verdict.exit_status) == (Cause.TIME_LIMIT, None, 2)
        assert "did not get ready in the 25 s that it was given; it is in stage initrd" in verdict.sentence
        assert clock.now - 1000 == 25.0

    def test_nothing_at_all(self, follower: Follower) -> None:
        """A machine that prints nothing is the host's affair."""
        verdict = failed(follower)
        assert (verdict.stage, verdict.owner) == (Stage.FIRMWARE, Owner.HOST)
        assert verdict.sentence.endswith("nothing was printed")

    def test_only_the_time_left_is_waited_for(self, follower: Follower, clock: ManualClock) -> None:
        """A wait lasts as long as the budget has left."""
        clock.advance(5.0)
        failed(follower)
        assert clock.waits == [15.0]

    def test_new_lines_are_progress(self, follower: Follower, clock: ManualClock) -> None:
        """Every new line begins the budget anew."""
        clock.at(15.0, lambda: follower.feed(b"PXE is slow\n"))
        failed(follower)
        assert clock.now - 1000 == 35.0

    def test_a_spinner_is_no_progress(self, follower: Follower, clock: ManualClock) -> None:
        """The repaint of a waiting job is not progress, but says what is waited for."""
        follower.feed(IN_INITRD)
        for second in range(1, 60):
            text = f"\r\x1b[K[***   ] A start job is running for /dev/disk/by-label/x ({second}s / 1min 30s)\r"
            clock.at(second, partial(follower.feed, text.encode()))
        verdict = failed(follower)
        assert clock.now - 1000 == 30.0
        assert verdict.cause == Cause.DEVICE_TIMEOUT
        assert "the boot waits for device /dev/disk/by-label/x, which does not appear" in verdict.sentence
        assert sum("A start job" in line.text for line in follower.lines) == 1

    def test_the_same_line_again_is_no_progress(self, follower: Follower, clock: ManualClock) -> None:
        """A guest that repeats itself does not get on."""
        for second in range(0, 60, 2):
            clock.at(second, lambda: follower.feed(b"still waiting\nreally\n"))
        failed(follower)
        assert clock.now - 1000 == 20.0

    def test_a_clock_that_is_repainted_is_no_progress(self, follower: Follower, clock: ManualClock) -> None:
        """A menu that shows the time stands still."""
        for minute in range(3):
            clock.at(10.0 * minute, partial(follower.feed, b"[ (1*installer)  2 shell ][ Nov 29  9:3%d ]\n" % minute))
        failed(follower)
        assert clock.now - 1000 == 20.0

    def test_complaints_for_ever_end(self, make: Make, clock: ManualClock) -> None:
        """A guest that always has something new to say is stuck as well in the end."""
        follower = make(budgets=Budgets(patience=3.0))
        for second in range(0, 100, 5):
            clock.at(second, partial(follower.feed, b"take %d\n" % second))
        assert "did not end in 60 s" in failed(follower).sentence

    def test_scale(self, make: Make, clock: ManualClock) -> None:
        """Without KVM budgets are four times as long."""
        failed(make(budgets=Budgets(scale=4.0)))
        assert clock.now - 1000 == 80.0

    def test_load_is_sampled_at_the_end(self, make: Make, clock: ManualClock) -> None:
        """A host that got loaded meanwhile gives more time, and is not asked before."""
        samples: list[float] = []

        def load() -> float:
            samples.append(clock.now - 1000)
            return 2.0

        failed(make(load=load))
        assert (samples, clock.now - 1000) == ([20.0, 40.0], 40.0)

    def test_what_failed_before_is_evidence(self, follower: Follower) -> None:
        """A hang after a failure shows the failure."""
        follower.feed(IN_INITRD + b"[DEPEND] Dependency failed for /sysroot/nix/store.\nlast\n")
        verdict = failed(follower)
        assert verdict.cause == Cause.NO_PROGRESS
        assert any("[DEPEND]" in item.text for item in verdict.evidence)

    def test_heartbeat(self, make: Make, clock: ManualClock) -> None:
        """Who waits is told every second where the boot is, its last line and how old that is."""
        beats: list[tuple[Stage, str, float]] = []
        follower = make(watch=lambda boot: beats.append((boot.stage, boot.lines[-1].text, clock.now - 1000)))
        follower.feed(IN_INITRD)
        failed(follower)
        assert beats[0] == (Stage.INITRD, "Booting initrd of Debian...", 1.0)
        assert len(beats) == 30


class TestWaits:
    """Waiting for a line."""

    def test_a_line_that_comes(self, follower: Follower, clock: ManualClock) -> None:
        """A wait ends with the line, which knows its time and stage."""
        follower.feed(IN_INITRD)
        clock.at(3.0, lambda: follower.feed(b"x\nhello world\n"))
        line = follower.wait_line(r"hello \w+", timeout=10.0)
        assert (line.t, line.text, line.stage, line.source) == (3.0, "hello world", Stage.INITRD, "console")

    @pytest.mark.parametrize("early", [True, False])
    def test_a_prompt(self, follower: Follower, clock: ManualClock, early: bool) -> None:
        """A line without newline is found, whether it was there or comes."""
        clock.at(1.0, lambda: follower.feed(b"" if early else b"debian login: "))
        follower.feed(b"debian login: " if early else b"")
        assert follower.wait_line(re.compile("login: $"), timeout=5.0).text == "debian login: "

    def test_too_late(self, follower: Follower, clock: ManualClock) -> None:
        """A line that does not come is an error with the last line."""
        follower.feed(NIXOS_BOOT)
        with pytest.raises(
            GuestError, match=r"no line with 'never' came in 7 s; the last line, 7 s old, is .*Multi-User"
        ):
            follower.wait_line("never", timeout=7.0)
        assert clock.now - 1000 == 7.0

    def test_a_failure_ends_every_wait(self, follower: Follower, clock: ManualClock) -> None:
        """Nobody waits for a guest that is dead."""
        follower.feed(IN_INITRD)
        clock.at(2.0, lambda: follower.feed(PANIC))
        with pytest.raises(GuestError, match="the kernel panicked"):
            follower.wait_line("never", timeout=600.0)
        assert pytest.approx(3.0) == clock.now - 1000

    def test_threads(self, tmp_path: Path) -> None:
        """With the real clock and real threads a waiter is woken by what a reader pushes."""
        with Follower(tmp_path) as follower:
            verdicts: list[Verdict] = []
            waiters = [threading.Thread(target=lambda: verdicts.append(follower.wait_verdict())) for _ in range(3)]
            reader = threading.Thread(target=lambda: follower.feed(NIXOS_BOOT))
            for thread in (*waiters, reader):
                thread.start()
            for thread in (*waiters, reader):
                thread.join(timeout=20.0)
        assert [verdict.ready for verdict in verdicts] == [True] * 3


class TestLogs:
    """What is left on disk."""

    def test_raw_bytes_and_lines(self, follower: Follower, tmp_path: Path) -> None:
        """The files of a run have the bytes as they came and the lines with stage and source."""
        follower.feed(GOOD_BOOT)
        results = tmp_path / "results"
        assert (results / "console.log").read_bytes() == GOOD_BOOT
        lines = [json.loads(line) for line in (results / "console.jsonl").read_text().splitlines()]
        assert [line["source"] for line in lines[:2]] == ["event", "console"]
        assert lines[-1]["stage"] == "userspace"

    def test_the_timeline_is_written_with_the_verdict(self, follower: Follower, tmp_path: Path) -> None:
        """timeline.json is there as soon as the verdict is."""
        follower.feed(GOOD_BOOT)
        timeline = json.loads((tmp_path / "results" / "timeline.json").read_text())
        assert [str(stage) for stage in Stage] == list(timeline["seconds"])

    def test_the_last_words_count(self, make: Make) -> None:
        """A line that the guest could not end is a line when the follower closes."""
        follower = make()
        follower.feed(b"last words")
        follower.close()
        assert follower.lines[-1].text == "last words"

    def test_a_second_process_continues(self, make: Make) -> None:
        """Another follower of the same machine knows that its boot is the second."""
        make().close()
        assert make().boot == 2

    def test_a_full_disk(self, make: Make, tmp_path: Path) -> None:
        """A full disk is noted once and the boot is followed all the same."""
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "console.log").symlink_to("/dev/full")
        follower = make()
        drip(follower, ManualClock(), GOOD_BOOT)
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert [event.name for event in follower.events] == ["LOG_CUT"]

    def test_a_flood_is_followed(self, follower: Follower) -> None:
        """Megabytes of noise in one read neither hide the boot nor stay in memory."""
        follower.feed(b"EFI stub: x\n" + b"x" * (10 << 20) + b"\n" + GOOD_BOOT.partition(b"device path\r\n")[2])
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert len(follower.lines) <= 500
