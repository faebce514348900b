"""Sizes are read as systemd reads them, and shown for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.errors import InputError
from vmtests.sizes import format_size, parse_seconds, parse_size, round_up, whole


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096", 4096),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("10GiB", 10 << 30),
        ("3kb", 3 << 10),
        (" 1T ", 1 << 40),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    """Every suffix is a power of 1024, in either case, with or without `iB`."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0G", "G", "-1G", "1.5G", "1 0", "big", "1X", "1GG"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Nothing, zero, a fraction, a sign or an unknown suffix is no size."""
    with pytest.raises(InputError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit(size: int, text: str) -> None:
    """A size is shown in the largest binary unit that leaves at least one."""
    assert format_size(size) == text


@given(st.integers(0, 1 << 50), st.integers(1, 1 << 40))
def test_round_up_gives_the_least_multiple(value: int, step: int) -> None:
    """The result is a multiple, not less than the value, and less than one step above it."""
    result = round_up(value, step)
    assert result % step == 0
    assert 0 <= result - value < step


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_no_length_of_time(text: str) -> None:
    """What is no length of time is refused in one line."""
    with pytest.raises(InputError, match="is not a time"):
        parse_seconds(text)


def test_length_of_time() -> None:
    """Seconds may have a fraction."""
    assert parse_seconds("1.5") == 1.5


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 5000 + "T", "8388608T", "٣G", "²"])
def test_digits_without_end_are_no_size(text: str) -> None:
    """What no file can have, other scripts' digits, more of them than int() takes: refused, and not quoted whole."""
    with pytest.raises(InputError, match="is not a size") as refused:
        parse_size(text)
    assert len(str(refused.value)) < 400


def test_time_is_one_that_can_be_waited_for() -> None:
    """A thread cannot wait for any number of seconds."""
    with pytest.raises(InputError, match="is not a time"):
        parse_seconds("1e300")
    assert parse_seconds("1e6") == 1e6


def test_whole_number_is_ascii_and_short() -> None:
    """What int() refuses by ValueError, or reads otherwise than it looks, is no number."""
    assert [whole(text) for text in ("0", "42", "-1", "", "²", "٣", "9" * 5000)] == [
        0,
        42,
        None,
        None,
        None,
        None,
        None,
    ]
