"""What the laboratory hands to a guest, and what it says of a boot that failed."""

from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import InputError, Owner
from vmtests.guest import credentials
from vmtests.lab import BootError, Lab


def test_failed_boot_is_a_sentence_with_stage_cause_and_console() -> None:
    """A boot that failed says where, why, what to do and where the console is."""
    verdict = Verdict(
        ready=False,
        stage=Stage.INITRD,
        cause=Cause.MOUNT_FAILED,
        sentence="/sysroot was not mounted",
        evidence=(),
        hint="look at it",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.1,
    )
    error = BootError(verdict, Path("results"))
    assert error.message == "boot failed in initrd: /sysroot was not mounted"
    assert error.hint == "look at it; the console is results/console.log"
    assert (error.owner, error.exit_code) == (Owner.IMAGE, 1)


def test_results_are_made_when_they_are_needed(tmp_path: Path) -> None:
    """A laboratory that boots nothing makes no directory."""
    with Lab(lambda: pytest.fail("made too early")) as lab, pytest.raises(InputError):
        lab.image("reference", ["foo"])


def test_announcement_waits_for_the_target_and_the_last_job() -> None:
    """The unit that a guest is handed comes after the target, and asks systemd before it says the token."""
    given = credentials.announce("multi-user.target", "secret")
    unit = given["systemd.extra-unit.vmtests-announce.service"].decode()
    assert "After=multi-user.target" in unit.splitlines()
    assert unit.index("is-system-running --wait") < unit.index("secret")
    dropin = given["systemd.unit-dropin.multi-user.target~vmtests"].decode()
    assert "Wants=vmtests-announce.service" in dropin.splitlines()


def test_login_hands_in_the_public_key_only() -> None:
    """The guest gets the public half of the run's key."""
    given = credentials.login("ssh-ed25519 AAAA me", "ttyS0", "multi-user.target")
    assert given["ssh.authorized_keys.root"] == b"ssh-ed25519 AAAA me"


def test_shell_is_left_to_a_getty() -> None:
    """The shell that is handed in starts with the target, after the console's getty, and only without one.

    It is ended by a signal that a shell heeds: SIGTERM would be waited for at each shutdown.
    """
    given = credentials.login("ssh-ed25519 AAAA me", "ttyS0", "multi-user.target")
    unit = given["systemd.extra-unit.vmtests-shell.service"].decode()
    assert {"After=serial-getty@ttyS0.service", "KillSignal=SIGHUP"} <= set(unit.splitlines())
    assert "! systemctl is-active --quiet serial-getty@ttyS0.service" in unit
    dropin = given["systemd.unit-dropin.multi-user.target~vmtests-shell"].decode()
    assert "Wants=vmtests-shell.service" in dropin.splitlines()
