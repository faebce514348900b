"""Machines are let in as long as the host has the memory for them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host.admission import PATIENCE, RESERVE, Admission
from vmtests.sizes import GIB, MIB

_HOLDER = """
import os, pathlib, signal, sys
from vmtests.host.admission import Admission
with Admission(pathlib.Path(sys.argv[1])).room(1 << 20):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Host:
    """A host with 4 GiB, whose time passes while somebody waits."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.available = self.later = 4 * GIB
        self.admission = Admission(
            directory, memory=lambda: (4 * GIB, self.available), clock=lambda: self.now, pause=self.pause
        )

    def pause(self, seconds: float) -> None:
        """Let time pass, in which others end."""
        self.now += seconds
        self.available = self.later


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nobody is."""
    return Host(tmp_path / "machines")


def test_machines_are_let_in_while_there_is_room(host: Host, tmp_path: Path) -> None:
    """As many machines are let in as fit beside the reserve; their room is free when they end, and no file is left."""
    assert RESERVE == GIB
    with host.admission.room(GIB), host.admission.room(GIB), host.admission.room(GIB):
        pass
    assert not list(tmp_path.rglob("machine-*"))
    with host.admission.room(3 * GIB):
        assert host.now == 0.0


def test_machine_that_finds_no_room_is_an_error_after_a_while(host: Host) -> None:
    """Who waits for room that nobody gives back is told how much is taken."""
    with (
        host.admission.room(2 * GIB),
        pytest.raises(HostError, match="other machines may take 2048"),
        host.admission.room(2 * GIB),
    ):
        pass
    assert host.now >= PATIENCE


def test_machine_waits_for_memory_that_others_use(host: Host) -> None:
    """Memory that programs other than machines use is no room; when they end, the machine is let in."""
    host.available, host.later = GIB, 4 * GIB
    with host.admission.room(GIB):
        assert host.now > 0


def test_machine_larger_than_the_host_is_refused_at_once(host: Host) -> None:
    """A machine that can never fit is an error now."""
    with pytest.raises(HostError, match="does not fit into this host's 4096 MiB"), host.admission.room(4 * GIB):
        pass
    assert host.now == 0.0


def test_room_of_a_killed_run_is_free(tmp_path: Path) -> None:
    """What a run held that was killed with SIGKILL is nobody's, and its file is removed."""
    killed = subprocess.run([sys.executable, "-c", _HOLDER, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("machine-*"))) == 1
    with Admission(tmp_path).room(MIB):
        assert len(list(tmp_path.glob("machine-*"))) == 1
