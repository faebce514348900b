"""Results of commands."""

import pytest

from vmtests.errors import GuestError
from vmtests.guest.result import GuestTimeout, Result


def _result(stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0) -> Result:
    return Result.of("command", stdout=stdout, stderr=stderr, exit_code=exit_code, duration=0.1)


def test_check_returns_a_good_result() -> None:
    """A result that is ok is handed on by check."""
    result = _result(b"x")
    assert result.check() is result


def test_check_tells_the_last_line() -> None:
    """The error of a failed command has the command, its exit code and its last line on standard error."""
    with pytest.raises(GuestError, match=r"'command' ended with 7 in the guest: last"):
        _result(stderr=b"first\nlast\n\n", exit_code=7).check()


def test_check_without_a_word() -> None:
    """The error of a command that said nothing says so."""
    with pytest.raises(GuestError, match="nothing on standard error"):
        _result(exit_code=1).check()


def test_errors_are_printable() -> None:
    """Control characters of a guest never reach the terminal through an error."""
    with pytest.raises(GuestError) as caught:
        _result(stderr=b"\x1b]0;title\x07\x9b31m\xff" * 100, exit_code=1).check()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_lines_end_with_a_newline_only() -> None:
    """Form feeds and the like do not end lines, and the last newline begins none."""
    assert _result("a\fb\u2028c\n\nd\n".encode()).lines == ["a\fb\u2028c", "", "d"]


def test_no_lines() -> None:
    """An empty output has no lines."""
    assert _result().lines == []


def test_undecodable_output() -> None:
    """Bytes that are no UTF-8 become replacement characters, and stay exact in stdout_bytes."""
    result = _result(b"a\xffb")
    assert (result.stdout, result.stdout_bytes) == ("a\ufffdb", b"a\xffb")


def test_timeout_tells_what_was_last() -> None:
    """The error of a command that took too long has its last line."""
    error = GuestTimeout("sleep", 1.5, stdout=b"one\ntwo\n")
    assert error.message == "'sleep' did not end within 1.5 s in the guest; its last line was 'two'"
    assert isinstance(error, TimeoutError)
