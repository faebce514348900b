"""The hang doctor's judgement: what a silent machine is doing, from looks at it and from its kernel's words."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vmtests.boot.follow import Follower
from vmtests.boot.hang import Cpu, Look, Opinion, kernel_words, opinion, parse_registers
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import HostError, Owner
from vmtests.testing import ManualClock

from .consoles import IN_INITRD

# QEMU 10.0.8 with two processors: one sleeps in the kernel, the other runs a program; shortened.
REGISTERS = """
CPU#0
RAX=0000000000000001 RBX=0000000000000000 RCX=ffffa10e3ec24d20 RDX=4000000000000000
RSI=ffffffff99d6c6b6 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffffff9a003e88
R8 =0000000000000001 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=ffffffff994b5a0b RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
CPU#1
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=00007ffe96d08ca0
R8 =0000000000000001 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=00007f4ed2446015 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0
"""

ASLEEP = Cpu(index=0, rip=0xFFFFFFFF994B5A0B, level=0, halted=True)
PROGRAM = Cpu(index=1, rip=0x7F4ED2446015, level=3, halted=False)


def _looks(*cpus: Sequence[Cpu], **last: Any) -> list[Look]:
    looks = [Look(t=float(n), cpus=tuple(some), requests=100, in_flight=0, screen="a") for n, some in enumerate(cpus)]
    final = {"t": looks[-1].t, "cpus": looks[-1].cpus, "requests": 100, "in_flight": 0, "screen": "a", **last}
    return [*looks[:-1], Look(**final)]


Make = Callable[..., Follower]


class TestLooks:
    """What a monitor tells without the guest's help."""

    def test_registers_are_read(self) -> None:
        """Instruction pointer, privilege level and sleep of every processor are read from QEMU's own text."""
        assert (ASLEEP, PROGRAM) == parse_registers(REGISTERS)

    def test_nonsense_has_no_processors(self) -> None:
        """Text that is no register dump gives none."""
        assert () == parse_registers("unknown command: 'info registers'\n" * 1000)

    def test_guest_that_sleeps_waits(self) -> None:
        """When every processor sleeps in every look, the guest waits for something."""
        found = opinion(Stage.INITRD, _looks([ASLEEP], [ASLEEP]))
        assert "the only processor sleeps: the guest waits for something" == found.says
        assert (None, False) == (found.cause, found.moving)

    def test_guest_that_spins_is_told_from_one_that_works(self) -> None:
        """A processor that never leaves one page of the kernel spins; one that is elsewhere each time works."""
        here, there = (Cpu(index=0, rip=rip, level=0, halted=False) for rip in (0xFFFF0010, 0xFFFF9010))
        assert "processor 0 spins at symbol" == opinion(Stage.KERNEL, _looks([here], [here]), lambda _: "symbol").says
        assert "processor 0 works at 0xffff9010" == opinion(Stage.KERNEL, _looks([here], [there])).says

    def test_program_that_runs_is_named_as_one(self) -> None:
        """A processor outside the kernel runs a program."""
        assert "processor 1 runs a program" in opinion(Stage.USERSPACE, _looks([ASLEEP, PROGRAM])).says

    def test_guest_whose_disk_moves_is_slow_and_not_stuck(self) -> None:
        """Finished disk requests mean that the guest gets on, silently."""
        assert opinion(Stage.INITRD, _looks([ASLEEP], [ASLEEP], requests=107)).moving

    @pytest.mark.parametrize(
        ("looks", "idle"),
        [
            (_looks([ASLEEP, ASLEEP], [ASLEEP, ASLEEP]), True),
            (_looks([ASLEEP, ASLEEP], [ASLEEP, PROGRAM]), False),
            (_looks([ASLEEP], [ASLEEP], requests=101), False),
            (_looks([ASLEEP]), False),
        ],
    )
    def test_guest_that_sleeps_in_every_look_is_idle(self, looks: list[Look], idle: bool) -> None:
        """Neither a processor that works once nor a disk that does makes an idle guest."""
        assert idle is opinion(Stage.INITRD, looks).idle

    def test_disk_that_does_not_answer_is_the_hosts(self) -> None:
        """Requests that are in flight in every look, while none ends, are the host's fault."""
        looks = [Look(t=float(n), cpus=(ASLEEP,), requests=100, in_flight=2) for n in range(3)]
        found = opinion(Stage.INITRD, looks)
        assert (Cause.DISK_STALLED, Owner.HOST) == (found.cause, found.owner)
        assert "2 disk requests are in flight and none came back in 2.0 s" == found.says

    def test_machine_that_qemu_stopped_is_the_hosts(self) -> None:
        """A run state other than running is named: the guest cannot get on."""
        found = opinion(Stage.USERSPACE, _looks([ASLEEP], status="io-error"))
        assert (Cause.QEMU_STOPPED, Owner.HOST) == (found.cause, found.owner)
        assert "io-error" in found.says

    @pytest.mark.parametrize("stage", [Stage.BOOTLOADER, Stage.KERNEL])
    def test_screen_that_changes_while_the_console_is_silent_is_a_cause(self, stage: Stage) -> None:
        """A guest that talks to the screen only is told from one that is silent."""
        found = opinion(stage, _looks([ASLEEP], [ASLEEP], screen="b"))
        assert (Cause.SCREEN_ONLY, Owner.IMAGE) == (found.cause, found.owner)
        assert None is opinion(Stage.USERSPACE, _looks([ASLEEP], [ASLEEP], screen="b")).cause
        assert None is opinion(stage, _looks([ASLEEP], [ASLEEP])).cause
        silent = opinion(stage, _looks([ASLEEP], [ASLEEP], screen="b"), serial=True)
        assert (None, True) == (silent.cause, silent.moving)


class TestKernelWords:
    """What the kernel says of itself when it is asked by sysrq."""

    def test_blocked_task_is_named_with_the_function_that_waits(self) -> None:
        """The first function that is not the scheduler's is where a task waits."""
        found = kernel_words(
            [
                "sysrq: Show Blocked State",
                "task:mount           state:D stack:0     pid:215   tgid:215   ppid:1      flags:0x00004002",
                "Call Trace:",
                " <TASK>",
                " __schedule+0x3f9/0xb30",
                " schedule+0x27/0xf0",
                " io_schedule+0x46/0x70",
                " folio_wait_bit_common+0x13d/0x350",
                " erofs_read_metabuf+0x4b/0x90 [erofs]",
            ]
        )
        assert "task mount is blocked in folio_wait_bit_common" == found.says

    def test_refusal_is_told_with_the_way_out(self) -> None:
        """A kernel that does not let sysrq show anything says so, and the hint is to boot with the module debug."""
        assert "module debug" in kernel_words(["sysrq: This sysrq operation is disabled."] * 3).evidence[0][1]

    def test_silence_is_told(self) -> None:
        """That the kernel did not answer is evidence too."""
        assert ("sysrq", "the guest's kernel did not answer on the serial line") == kernel_words([]).evidence[0]


class Doctor:
    """A doctor with opinions from a list; `talk` is what the guest says when it is asked."""

    def __init__(self, *opinions: Opinion, talk: Callable[[], None] = lambda: None) -> None:
        self.opinions = list(opinions)
        self.talk = talk
        self.looked: list[Stage] = []
        self.heard: Sequence[str] = ()

    def look(self, stage: Stage, /) -> Opinion:
        """Return the next opinion."""
        self.looked.append(stage)
        return self.opinions.pop(0)

    def provoke(self, heard: Callable[[], Sequence[str]], /) -> Opinion:
        """Let the guest talk."""
        self.talk()
        self.heard = heard()
        return Opinion(says="task mount is blocked", evidence=(("sysrq", "mount"),))


class TestFollower:
    """The doctor is asked before the end of a budget becomes a verdict."""

    def test_doctors_words_are_in_the_verdict(self, make: Make) -> None:
        """Sentence and evidence have what the doctor found, after the last line and its age."""
        follower = make(doctor=Doctor(Opinion(says="it sleeps", evidence=(("registers", "asleep"),))))
        follower.feed(IN_INITRD)
        verdict = follower.wait_verdict()
        assert (Cause.NO_PROGRESS, Stage.INITRD) == (verdict.cause, verdict.stage)
        assert verdict.sentence.endswith("; it sleeps; task mount is blocked")
        assert ["registers", "sysrq"] == [item.source for item in verdict.evidence if item.source != "console"]

    def test_doctors_cause_is_the_verdicts(self, make: Make) -> None:
        """A cause that the doctor is sure of comes with its owner and hint, and nothing is provoked."""
        doctor = Doctor(Opinion(says="it hangs", cause=Cause.DISK_STALLED, owner=Owner.HOST, hint="look at the disk"))
        follower = make(doctor=doctor)
        follower.feed(IN_INITRD)
        verdict = follower.wait_verdict()
        assert (Cause.DISK_STALLED, Owner.HOST, "look at the disk") == (verdict.cause, verdict.owner, verdict.hint)
        assert () == doctor.heard

    def test_silent_guest_whose_disk_moves_gets_another_budget(self, make: Make, clock: ManualClock) -> None:
        """A guest that is slow gets three budgets in all, and not more."""
        doctor = Doctor(*[Opinion(says="it reads", moving=True)] * 3)
        follower = make(doctor=doctor)
        follower.feed(IN_INITRD)
        started = clock.now
        verdict = follower.wait_verdict()
        assert [Stage.INITRD] * 3 == doctor.looked
        assert Cause.NO_PROGRESS == verdict.cause
        assert 3 * 30.0 == pytest.approx(clock.now - started)

    def test_what_the_guest_was_made_to_say_is_no_progress_and_no_failure(
        self, make: Make, clock: ManualClock
    ) -> None:
        """Lines that sysrq and NMI provoke reach the doctor, and are neither judged nor the guest's last words."""

        def talk() -> None:
            clock.advance(0.5)
            follower.feed(b"[   50.000001] Kernel panic - not syncing: NMI: Not continuing\n")

        doctor = Doctor(Opinion(), talk=talk)
        follower = make(doctor=doctor)
        follower.feed(IN_INITRD)
        verdict = follower.wait_verdict()
        assert ["Kernel panic - not syncing: NMI: Not continuing"] == doctor.heard
        assert Cause.NO_PROGRESS == verdict.cause
        assert '"Booting initrd of Debian..."' in verdict.sentence

    def test_guest_that_gets_on_meanwhile_is_left_alone(self, make: Make, clock: ManualClock) -> None:
        """A line that comes while the doctor looks begins a new budget."""

        class Slow(Doctor):
            def look(self, stage: Stage, /) -> Opinion:
                clock.advance(1.0)
                follower.feed(b"[  OK  ] Mounted sysroot.mount - /sysroot.\n")
                return super().look(stage)

        slow = Slow(Opinion())
        follower = make(doctor=slow)
        follower.feed(IN_INITRD)
        with pytest.raises(IndexError):
            follower.wait_verdict()  # asked a second time, a budget later
        assert 2 == len(slow.looked)
        assert None is not follower.verdict

    def test_doctor_who_cannot_look_is_told(self, make: Make) -> None:
        """When QEMU does not let itself be asked, the verdict comes all the same and says so."""

        class Locked(Doctor):
            def look(self, stage: Stage, /) -> Opinion:
                raise HostError("QMP: query-status: no answer in 5 s")

        follower = make(doctor=Locked())
        follower.feed(IN_INITRD)
        verdict = follower.wait_verdict()
        assert Cause.NO_PROGRESS == verdict.cause
        assert "no answer in 5 s" in verdict.evidence[-1].text

    def test_loaded_host_gets_more_time_unless_the_cause_is_plain(self, make: Make, clock: ManualClock) -> None:
        """The doctor looks at the end of the idle host's budget; without a cause the wait goes on."""
        doctor = Doctor(Opinion(says="it sleeps"), Opinion(says="it sleeps"))
        follower = make(load=lambda: 2.0, doctor=doctor)
        follower.feed(IN_INITRD)
        started = clock.now
        follower.wait_verdict()
        assert 2 == len(doctor.looked)
        assert 60.0 == pytest.approx(clock.now - started)

    def test_idle_guest_gets_no_more_time_on_a_loaded_host(self, make: Make, clock: ManualClock) -> None:
        """A guest whose processors all sleep is not waiting for the host."""
        doctor = Doctor(Opinion(says="it sleeps", idle=True))
        follower = make(load=lambda: 4.0, doctor=doctor)
        follower.feed(IN_INITRD)
        started = clock.now
        follower.wait_verdict()
        assert 1 == len(doctor.looked)
        assert 30.0 == pytest.approx(clock.now - started)

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            (b"INIT: version 3.14 booting\r\nINIT: Entering runlevel: 2\r\nStarting sshd.\r\n", "unknown"),
            (b"Welcome to Debian GNU/Linux 13!\r\n[  OK  ] Started ssh.service.\r\n", "failed"),
        ],
    )
    def test_idle_guest_whose_gettys_are_elsewhere_is_not_blamed(self, make: Make, said: bytes, told: str) -> None:
        """A guest that sleeps may be up with no getty on this console; systemd would have said so."""
        follower = make(doctor=Doctor(Opinion(says="it sleeps", idle=True)))
        follower.feed(b"BdsDxe: loading Boot0001\r\n[    0.000000] Linux version 6.12\r\n" + said)
        verdict = follower.wait_verdict()
        assert told == verdict.word
        assert (told == "unknown") == ("it may be up" in verdict.sentence)

    def test_monitor_that_gets_no_processor_is_asked_again(self, make: Make, clock: ManualClock) -> None:
        """On a host that has no processor for QEMU, a monitor that does not answer means nothing yet."""
        silent = Opinion(says="no answer", cause=Cause.QEMU_SILENT, owner=Owner.HOST, hint="look")
        follower = make(load=lambda: 2.0, late=lambda: 1000.0 * (clock.now > 1000), doctor=Doctor(silent, silent))
        follower.feed(IN_INITRD)
        started = clock.now
        assert "the host had no processor" in follower.wait_verdict().sentence
        assert 60.0 == pytest.approx(clock.now - started)

    def test_pulse_says_where_a_boot_is(self, follower: Follower, clock: ManualClock) -> None:
        """Stage, last line and its age, what systemd waits for, and the budget left are one line."""
        follower.feed(IN_INITRD)
        follower.feed(b"[*     ] (1 of 2) A start job is running for /dev/disk/by-partlabel/root (4s / 45s)\r\n")
        clock.advance(12.0)
        assert (
            'initrd: the last line, 12 s old, is "Booting initrd of Debian..."; '
            "A start job is running for /dev/disk/by-partlabel/root; 18 s left to get on" == str(follower.pulse)
        )

    def test_what_was_waited_for_earlier_is_forgotten(self, follower: Follower) -> None:
        """A job that systemd waited for before the boot got on is not what holds it up now."""
        follower.feed(IN_INITRD)
        follower.feed(b"[*     ] (1 of 2) A start job is running for /dev/disk/by-partlabel/root (4s / 45s)\r\n")
        follower.feed(b"[  OK  ] Found device PersistentDisk root.\r\n")
        assert "start job" not in follower.wait_verdict().sentence
