"""The program that sets a guest's clock, run on this host without setting it."""

import errno
import struct
import subprocess
import time
from pathlib import Path

import pytest

from vmtests.guest import clock


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return the program."""
    path = tmp_path / "clock"
    path.write_bytes(clock.program())
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (b"", 1),
        (bytes(15), 1),
        # clock_settime(2): nanoseconds are fewer than 10^9, seconds not negative.
        (struct.pack("<qq", 1, 1_000_000_000), errno.EINVAL),
        (struct.pack("<qq", -1, 0), errno.EINVAL),
    ],
    ids=["nothing", "too short", "nanoseconds", "negative"],
)
def test_what_is_no_time_sets_no_clock(program: Path, told: bytes, status: int) -> None:
    """What cannot be a time is refused, by the program or by the kernel, whose error is the exit status."""
    assert status == subprocess.run([program], input=told, check=False).returncode


def test_user_may_not_set_the_clock(program: Path) -> None:
    """A good time gets as far as the kernel, which lets nobody but the host's root set its clock."""
    command = ["bwrap", "--unshare-user", "--ro-bind", "/", "/", str(program)]
    assert errno.EPERM == subprocess.run(command, input=clock.message(time.time()), check=False).returncode


def test_time_is_a_timespec() -> None:
    """Seconds become whole ones and nanoseconds."""
    assert (1_700_000_000, 250_000_000) == struct.unpack("<qq", clock.message(1_700_000_000.25))
