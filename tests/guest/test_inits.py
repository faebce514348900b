"""A guest is asked for its services in the words of its own init, in a real shell.

Where a program of an init is a script here, it says what the real one was seen to say: OpenRC 0.45.2, runit 2.1.2.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests import contract as contracts
from vmtests.guest import promises
from vmtests.guest.inits import INITS, SHOWN, Init, find
from vmtests.guest.result import Result

OPENRC = {
    "ls": 'case "$1" in */failed) echo bad ;; */started) printf "good\\ndaemon\\n" ;; esac',
    "rc-status": "echo daemon",
    "rc-service": 'case "$*" in "--exists nothing") exit 1 ;; --exists*) ;; '
    '"good status") echo " * status: started" ;; *) echo " * status: stopped"; exit 3 ;; esac',
}
RUNIT = {
    "sv": 'case "$2" in */*) printf "%s\\n" '
    '"down: /etc/service/bad: 1s, normally up, want up" "run: /etc/service/good: (pid 19059) 2s" '
    '"down: /etc/service/off: 2s" "fail: /service/*: unable to change to service directory: file does not exist" ;; '
    'good) echo "run: good: (pid 19059) 2s" ;; *) echo "down: $2: 2s" ;; esac',
}


class Shell:
    """A shell of this host in whose search path are some programs of an init; files are below `root`."""

    def __init__(self, root: Path, programs: dict[str, str]) -> None:
        self.root = root
        for name, script in programs.items():
            (root / name).write_text(f"#!/bin/sh\n{script}\n")
            (root / name).chmod(0o755)

    def run(self, command: str, /) -> Result:
        """Run a command."""
        command = command.replace("/etc/service", f"{self.root}/etc/service")
        # What is in /run of this host says nothing of a guest.
        command = command.replace("/run/", "/nowhere/").replace("/dev/initctl", "/nowhere/initctl")
        environment = {**os.environ, "PATH": f"{self.root}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
        return Result.of(command, stdout=done.stdout, stderr=done.stderr, exit_code=done.returncode, duration=0.0)


def _init(name: str) -> Init:
    return next(init for init in INITS if init.name == name)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], Shell]:
    """Gives a guest whose init is one of those known."""

    def guest(name: str, programs: dict[str, str]) -> Shell:
        monkeypatch.setattr("vmtests.guest.inits.find", lambda runner: _init(name))
        for service in ("good", "bad", "off"):
            (tmp_path / "etc/service" / service).mkdir(parents=True)
        return Shell(tmp_path, programs)

    return guest


@pytest.mark.parametrize(
    ("name", "programs", "sentences"),
    [
        (
            "OpenRC",
            OPENRC,
            [
                "bad has failed",
                "daemon has failed",
                "off is not active (OpenRC: stopped)",
                "nothing is not there (OpenRC: not found)",
            ],
        ),
        (
            "runit",
            RUNIT,
            ["bad has failed", "off is not active (runit: down: off: 2s)", "nothing is not there (runit: not found)"],
        ),
    ],
)
def test_services_are_held_to_the_contract_by_their_own_init(
    guest: Callable[[str, dict[str, str]], Shell], name: str, programs: dict[str, str], sentences: list[str]
) -> None:
    """What failed is told, and what is not up or not there of what was promised; names need no suffix."""
    promised = contracts.from_data({"units": {"active": ["good", "off", "nothing"]}}, "here")
    assert sentences == list(promises.units(promised, guest(name, programs)))


def test_services_that_are_up_are_found(guest: Callable[[str, dict[str, str]], Shell]) -> None:
    """A first contract promises them."""
    shell = guest("runit", RUNIT)
    assert ("good",) == _init("runit").up(shell)


def test_guest_that_nobody_can_ask_holds_no_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise of an active service is broken by an init that is not known, which is named."""
    monkeypatch.setattr("vmtests.guest.inits.find", lambda runner: None)
    promised = contracts.from_data({"units": {"active": ["sshd"]}}, "here")
    (told,) = promises.units(promised, Shell(tmp_path, {"cat": "echo my-init"}))
    assert "sshd is not known to be active: nobody can ask the guest's init, `my-init`" == told


@pytest.mark.parametrize(("first", "name"), [("runit", "runit"), ("dinit", "dinit"), ("bash", None)])
def test_init_is_known_by_its_first_process(tmp_path: Path, first: str, name: str | None) -> None:
    """Where the init leaves no other sign, what process 1 is called tells."""
    found = find(Shell(tmp_path, {"cat": f"echo {first}"}))
    assert name == (None if found is None else found.name)


def test_what_is_shown_to_people_is_one_command(tmp_path: Path) -> None:
    """Any shell reads it, and where no init is known it prints nothing."""
    result = Shell(tmp_path, {"cat": "echo my-init"}).run(SHOWN)
    assert (True, "") == (result.ok, result.stdout)
