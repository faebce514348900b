"""The fake machine boots as the recorded one did, and answers what it was told."""

import time

import pytest

from vmtests import BootError, Cause, GuestError, InputError, Result, Stage, Verdict
from vmtests.testing import FakeVm, SmallImage, recording, recordings, replay


def test_good_boot_gets_ready_at_once() -> None:
    """A machine with a good console is ready, has been through every stage, and took little of a processor."""
    began = time.process_time()
    with FakeVm() as vm:
        assert vm.wait_ready().ready
        assert list(Stage) == list(vm.timeline.starts)
        assert any("Welcome to" in line.text for line in vm.console)
    assert time.process_time() - began < 5.0


def test_answers_are_what_was_told() -> None:
    """A command gets its answer: standard output, a result, or what a function returns; any other has none."""
    failed = Result(command="false", stdout="", stderr="no", exit_code=1, duration=0.0)
    with FakeVm(answers={"uname -r": "6.12\n", "false": failed, "echo": lambda command: command}) as vm:
        vm.wait_ready()
        assert vm.run("uname -r").check().lines == ["6.12"]
        assert vm.run("echo").stdout == "echo"
        with pytest.raises(GuestError, match="ended with 1"):
            vm.run("false").check()
        with pytest.raises(LookupError, match="no answer to 'ls'"):
            vm.run("ls")
        assert vm.ran == ["uname -r", "echo", "false", "ls"]


def test_facts_come_from_answers() -> None:
    """What is parsed of a guest's output, such as its boot id, is parsed of the answers."""
    with FakeVm(answers={"cat /proc/sys/kernel/random/boot_id": "0-1-2\n"}) as vm:
        vm.wait_ready()
        assert vm.facts.boot_id() == "012"


def test_failed_boot_is_an_error() -> None:
    """A recorded failure is the error that a real one is, with its verdict and the last lines."""
    with FakeVm("fault-store-label-wrong") as vm, pytest.raises(BootError) as failure:
        vm.wait_ready()
    assert failure.value.verdict.cause is Cause.DEVICE_TIMEOUT
    assert failure.value.lines


def test_restarts_are_boots_of_their_own() -> None:
    """After a reboot and a power cut the machine boots again; without power it answers nothing."""
    with FakeVm(answers={"true": ""}) as vm:
        vm.wait_ready()
        assert vm.reboot().ready
        vm.power_cut()
        with pytest.raises(GuestError, match="the machine is off"):
            vm.run("true")
        with pytest.raises(GuestError, match="the machine is off"):
            vm.reboot()
        assert vm.power_on().ready
        assert vm.follower.boot == 3
        assert vm.run("true").ok


def test_what_only_a_machine_has_is_one_sentence() -> None:
    """A fake machine has no ssh and no serial line, and says what it has instead."""
    with FakeVm() as vm, pytest.raises(GuestError, match=r"has no serial shell .hint: what it answers"):
        vm.shell.run("true")


def test_what_a_report_shows_of_a_guest_is_not_asked_of_a_fake_one() -> None:
    """Code that keeps it for the report runs on a fake machine, too, without answers for that."""
    with FakeVm() as vm:
        vm.keep()
        assert vm.ran == []


def test_replay_judges_any_console() -> None:
    """A console that ends in a panic is one, and one that says nothing more gets the verdict of its silence."""
    panic = b"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
    verdict = replay(b"EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path\r\n" + panic)
    assert isinstance(verdict, Verdict)
    assert not verdict.ready
    assert verdict.stage is Stage.KERNEL
    assert replay(b"").stage is Stage.FIRMWARE
    assert replay(recording()).ready


def test_unknown_recording_is_one_sentence() -> None:
    """A name that no recording has is refused with those there are."""
    with pytest.raises(InputError, match=r"no boot is recorded as 'none' .*reference-ready"):
        recording("none")
    assert "reference-ready" in recordings()


def test_small_image_is_good_until_it_is_broken(patient: SmallImage) -> None:
    """A small image obeys the contract; broken, the inspection says how."""
    assert patient.sentences() == []
    patient.write(patient.start(2), bytes(4096))
    assert any("erofs" in sentence for sentence in patient.sentences())
