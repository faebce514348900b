"""Commands are run over whichever way works, and a way that failed is not tried again in the same boot."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.errors import GuestError
from vmtests.guest.agent import Agent
from vmtests.guest.guest import Guest, NoWayInError
from vmtests.guest.keys import Key
from vmtests.guest.result import Result
from vmtests.guest.serial import SerialShell


class _Shell:
    """A shell that says by which way it was reached."""

    def run(self, command: str, timeout: float = 60.0, *, stdin: bytes | None = None, limit: int = 1 << 20) -> Result:
        """Answer."""
        return Result.of(command, stdout=b"serial", stderr=b"", exit_code=0, duration=0.0)


class _Reach:
    """A guest without ssh; `open_shell` is what gives its shell."""

    ssh_address = ("127.0.0.1", 1)

    def __init__(self, shell: Callable[[], object]) -> None:
        self.shell = shell
        self.agent: object = None
        self.asked: list[str] = []

    def wait_sshd(self) -> None:
        """Do nothing."""

    def open_shell(self, guest: Guest, /) -> SerialShell:
        """Give the shell."""
        self.asked.append("serial")
        return self.shell()  # type: ignore[return-value]

    def line(self, guest: Guest, /) -> contextlib.AbstractContextManager[socket.socket]:
        """Give none."""
        raise GuestError("no line")

    def open_agent(self, guest: Guest, /) -> Agent | None:
        """Give the agent, if there is one."""
        return self.agent  # type: ignore[return-value]

    def find_host_keys(self, guest: Guest, /) -> tuple[str, ...]:
        """Find none."""
        self.asked.append("ssh")
        raise GuestError("the guest has no network, by which ssh could reach it")

    def interrupt(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _guest(directory: Path, shell: Callable[[], object]) -> tuple[Guest, _Reach]:
    reach = _Reach(shell)
    return Guest(reach, Key(path=directory / "key", public=""), scale=1.0), reach


def test_serial_shell_is_used_where_ssh_does_not_answer(tmp_path: Path) -> None:
    """What ssh could not do in this boot it is not asked for again."""
    guest, reach = _guest(tmp_path, _Shell)
    assert ["serial", "serial"] == [guest.run("true").stdout for _ in range(2)]
    assert ["ssh", "serial"] == reach.asked


def test_way_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    """Another boot may have a network."""
    guest, reach = _guest(tmp_path, _Shell)
    guest.run("true")
    guest.hang_up()
    guest.run("true")
    assert ["ssh", "serial"] * 2 == reach.asked


def test_agent_is_asked_where_nobody_logs_in(tmp_path: Path) -> None:
    """A guest with a locked root and no network is entered by its agent; another way is not tried again."""

    def refuse() -> object:
        raise GuestError("root is locked")

    guest, reach = _guest(tmp_path, refuse)
    reach.agent = _Shell()
    assert ["serial", "serial"] == [guest.run("true").stdout for _ in range(2)]
    assert ["ssh", "serial"] == reach.asked


def test_guest_that_nobody_gets_into_is_one_sentence(tmp_path: Path) -> None:
    """It says why by each way, with the hint that helps, and again without trying anything."""

    def refuse() -> object:
        raise GuestError("root has a password on the serial line", hint="--login root:PASSWORD")

    guest, reach = _guest(tmp_path, refuse)
    for _ in range(2):
        with pytest.raises(NoWayInError) as caught:
            guest.run("true")
        assert (
            "nobody gets into the guest, over ssh: the guest has no network, by which ssh could reach it; "
            "on the serial line: root has a password on the serial line"
        ) == caught.value.message
        assert "--login root:PASSWORD" == caught.value.hint
    assert ["ssh", "serial"] == reach.asked
