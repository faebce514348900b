"""Bytes to lines."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.boot.scanner import LINE_LIMIT, Scanner
from vmtests.text import decode

PIECES = [
    b"\x1b[0;32m",
    b"\x1b[!p",
    b"\x1b]104\x07",
    b"\x1b]0;t\x1b\\",
    b"\x1bM",
    b"\x1b(B",
    b"\x1b]P0aabbcc",
    b"\x1bP1$r\x1b\\",
    b"\x1b",
    b"\x1b[",
    b"\x1b]",
    b"\x1b]8;;",
    b"\x1b]P0a",
    b"\x1b(",
    b"\x07",
    b"\\",
    b"[",
    b"]",
    b"P",
    b"0",
    b";",
    b"m",
    b"\r",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\x1b[01;01H",
    "é…".encode(),
    b"\xc3",
    b"\xff",
    b"\x00",
    b"\t",
    b" ",
    b"x" * 50,
]


def texts(*chunks: bytes, limit: int = LINE_LIMIT) -> list[str]:
    """Return the lines of a stream that comes in these chunks."""
    scanner = Scanner(limit)
    lines = [line.text for chunk in chunks for line in scanner.feed(chunk)]
    return lines + [line.text for line in scanner.finish()]


class TestLines:
    """Where lines end."""

    def test_a_newline_ends_a_line(self) -> None:
        """A line is complete at its newline and not before."""
        scanner = Scanner()
        assert scanner.feed(b"one") == []
        assert [line.text for line in scanner.feed(b"\n")] == ["one"]

    @pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\r\n", b"\r"])
    def test_every_ending_counts_once(self, ending: bytes) -> None:
        """Newline, CR LF, CR CR LF and a lone CR each end one line."""
        assert texts(b"one" + ending + b"two" + ending) == ["one", "two"]

    def test_an_ending_may_be_split(self) -> None:
        """CR and LF in two reads are one ending."""
        assert texts(b"one\r", b"\ntwo\n") == ["one", "two"]

    def test_empty_lines_are_left_out(self) -> None:
        """Lines without visible text are no lines."""
        assert texts(b"a\n\n  \n\x1b[0m\nb\n") == ["a", "b"]

    def test_indentation_stays_and_trailing_blanks_go(self) -> None:
        """Job lines are known by their indentation; padding at the end means nothing."""
        assert texts(b"         Starting x...   \r\n") == ["         Starting x..."]

    def test_the_rest_comes_at_the_end(self) -> None:
        """What a dying guest wrote without a newline is a line when the stream ends."""
        assert texts(b"Kernel panic") == ["Kernel panic"]

    @given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.data())
    def test_any_split_gives_the_same_lines(self, data: bytes, draw: st.DataObject) -> None:
        """How reads cut the stream does not change its lines."""
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert texts(data, limit=64) == texts(*parts, limit=64)

    @given(st.binary(max_size=300))
    def test_bytes_one_by_one_give_the_same_lines(self, data: bytes) -> None:
        """No input is scanned differently when it drips."""
        assert texts(data) == texts(*(data[i : i + 1] for i in range(len(data))))


class TestSequences:
    """Terminal sequences."""

    @pytest.mark.parametrize(
        "sequence",
        [
            b"\x1b[0;1;39m",
            b"\x1b[?25l",
            b"\x1b[=3h",
            b"\x1b[K",
            b"\x1b[!p",
            b"\x1b]104\x07",
            b"\x1b]104\x1b\\",
            b"\x1b]0;title\x07",
            b"\x1bM",
            b"\x1b7",
            b"\x1b(B",
            b"\x1b#8",
            b"\x1b]R",
            b"\x1b]P0ff00ff",
            b"\x1bP+q544e\x1b\\",
            b"\x1b_app\x1b\\",
        ],
    )
    def test_sequences_are_no_text(self, sequence: bytes) -> None:
        """A terminal sequence is taken out, wherever a read cuts it."""
        data = b"be" + sequence + b"fore\n"
        for cut in range(len(data)):
            assert texts(data[:cut], data[cut:]) == ["before"]

    @pytest.mark.parametrize("sequence", [b"\x1b[01;01H", b"\x1b[2J", b"\x1b[5;1f", b"\x1bc"])
    def test_a_cursor_that_goes_elsewhere_ends_the_line(self, sequence: bytes) -> None:
        """Firmware paints with cursor addresses instead of newlines."""
        assert texts(b"menu" + sequence + b"entry\n") == ["menu", "entry"]

    @pytest.mark.parametrize("start", [b"\x1b]", b"\x1bP", b"\x1b[", b"\x1b(", b"\x1b"])
    def test_a_sequence_that_never_ends_hides_nothing_for_long(self, start: bytes) -> None:
        """After a broken sequence the next line is seen."""
        assert "Kernel panic" in texts(start + b"\nKernel panic\n")

    def test_the_text_of_a_broken_string_is_seen(self) -> None:
        """A control string that a newline cuts off was text."""
        assert texts(b"\x1b]0;Kernel panic\n") == ["]0;Kernel panic"]

    def test_a_string_that_is_too_long_is_text(self) -> None:
        """A lost terminator does not swallow the console."""
        assert texts(b"\x1b]" + b"x" * 1000 + b"\n") == ["]" + "x" * 1000]


class TestCharacters:
    """Bytes to characters."""

    def test_utf8_may_be_split(self) -> None:
        """A character in two reads is one character."""
        data = "über …\n".encode()
        assert [["über …"]] * len(data) == [texts(data[:i], data[i:]) for i in range(len(data))]

    def test_broken_utf8_is_replaced(self) -> None:
        """Bytes that are no UTF-8 are replaced, and the line goes on."""
        assert texts(b"a\xffb\n") == ["a\ufffdb"]

    def test_control_characters_are_replaced(self) -> None:
        """Nothing in a line can move a terminal's cursor or turn its text around."""
        assert texts("a\x08b\u202ec\x9bd\n".encode()) == ["a\ufffdb\ufffdc\ufffdd"]

    def test_nul_and_bell_take_no_room(self) -> None:
        """Noise of a UART in front of a line does not hide the line's start."""
        assert texts(b"\0\0\aLinux version 6\n") == ["Linux version 6"]

    @given(st.binary(max_size=200))
    def test_lines_are_printable(self, data: bytes) -> None:
        """Whatever comes, a line is printable."""
        assert all(line.isprintable() for line in texts(data))

    def test_odd_blanks_become_spaces(self) -> None:
        """A no-break space is a space to the patterns."""
        assert decode("a\u00a0b".encode()) == "a b"


class TestBounds:
    """Time and memory."""

    def test_a_long_line_is_cut_and_says_so(self) -> None:
        """A line keeps its first bytes and the number of those that were dropped."""
        scanner = Scanner()
        (line,) = scanner.feed(b"x" * (LINE_LIMIT + 5) + b"\n")
        assert (len(line.text), line.cut) == (LINE_LIMIT, 5)

    def test_the_line_after_a_long_one_is_whole(self) -> None:
        """Cutting ends with the line."""
        scanner = Scanner(10)
        assert [line.cut for line in scanner.feed(b"x" * 15 + b"\nok\n")] == [5, 0]

    @pytest.mark.parametrize(
        "chunk",
        [
            b"x" * 65536,
            b"\x1b" * 65536,
            b"\x1b[" * 4096,
            b"\x1b]" + b"y" * 65534,
            b"\x1b[1" * 4096,
            b"\r" * 65536,
        ],
        ids=["one line", "escapes", "open sequences", "open strings", "parameters", "returns"],
    )
    def test_a_flood_keeps_memory_flat(self, chunk: bytes) -> None:
        """Megabytes that end no line take no more memory than the line limit allows."""
        scanner = Scanner()
        scanner.feed(chunk)
        repeats = (4 << 20 if chunk[0:1] in (b"x", b"\r") else 64 << 10) // len(chunk)  # tracing is slow
        tracemalloc.start()
        try:
            for _ in range(repeats):
                scanner.feed(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20
        assert len(scanner.partial) <= LINE_LIMIT

    @pytest.mark.parametrize("unit", [b"[  OK  ] Started x.\r\n", b"x", b"\x1b[0m", b"\x1b]x", b"\r"])
    def test_twice_the_input_is_twice_the_work(self, unit: bytes) -> None:
        """The bytes that are looked at grow as the input does, also when it drips."""

        def work(repeats: int) -> int:
            scanner = Scanner()
            data = unit * repeats
            for start in range(0, len(data), 7):
                scanner.feed(data[start : start + 7])
            return scanner.examined

        assert work(4000) <= 2.05 * work(2000)
        assert work(4000) <= 6 * 4000 * len(unit)


class TestPartial:
    """The line that has not ended."""

    @pytest.mark.parametrize("prompt", ["debian login: ", "Press Enter for maintenance", "Shell> "])
    def test_a_prompt_is_visible_before_its_newline(self, prompt: str) -> None:
        """A prompt never ends its line, and is seen with its trailing blank."""
        scanner = Scanner()
        scanner.feed(b"text\r\n\x1b[0m" + prompt.encode())
        assert prompt == scanner.partial

    def test_the_partial_line_goes_with_its_newline(self) -> None:
        """A line is partial or complete, not both."""
        scanner = Scanner()
        scanner.feed(b"abc")
        scanner.feed(b"\n")
        assert (scanner.partial, scanner.partial_size) == ("", 0)
