"""The console on disk."""

import json
from pathlib import Path

import pytest

from vmtests.boot.console import KEPT_LINES, ConsoleLog, Line
from vmtests.boot.stages import Stage
from vmtests.errors import InputError


def line(text: str, source: str = "console") -> Line:
    """Make a line."""
    return Line(t=1.23456, text=text, stage=Stage.KERNEL, source=source)


class TestConsoleLog:
    """The files of a console."""

    def test_raw_bytes_stay_as_they_came(self, tmp_path: Path) -> None:
        """console.log has every byte, sequences and broken characters too."""
        data = bytes(range(256)) + b"\x1b[0m\r\n"
        with ConsoleLog(tmp_path) as log:
            log.raw(data)
        assert data == (tmp_path / "console.log").read_bytes()

    def test_json_lines(self, tmp_path: Path) -> None:
        """console.jsonl has one object for each line."""
        with ConsoleLog(tmp_path) as log:
            log.add([line('a "b" …')], boot=1)
        assert json.loads((tmp_path / "console.jsonl").read_text()) == {
            "boot": 1,
            "t": 1.235,
            "stage": "kernel",
            "source": "console",
            "text": 'a "b" …',
        }

    def test_what_was_written_is_on_disk_at_once(self, tmp_path: Path) -> None:
        """Nothing is lost when the follower is killed."""
        with ConsoleLog(tmp_path) as log:
            log.raw(b"x")
            log.add([line("x")], boot=1)
            assert (tmp_path / "console.log").read_bytes() == b"x"
            assert len((tmp_path / "console.jsonl").read_text().splitlines()) == 1

    def test_memory_has_the_last_lines(self, tmp_path: Path) -> None:
        """Memory is bounded by the number of lines; the file has all of them."""
        with ConsoleLog(tmp_path) as log:
            log.add([line(str(n)) for n in range(KEPT_LINES + 10)], boot=1)
            assert (len(log.lines), log.lines[0].text) == (KEPT_LINES, "10")
        assert len((tmp_path / "console.jsonl").read_text().splitlines()) == KEPT_LINES + 10

    def test_events_are_on_disk_only(self, tmp_path: Path) -> None:
        """The lines in memory are the console's."""
        with ConsoleLog(tmp_path) as log:
            log.add([line("RESET", "event")], boot=1)
            assert log.lines == ()

    def test_a_log_is_continued(self, tmp_path: Path) -> None:
        """A second process of the same machine appends, and knows which boot comes next."""
        with ConsoleLog(tmp_path) as log:
            assert log.next_boot == 1
            log.raw(b"one")
            log.add([line("one")], boot=1)
        with ConsoleLog(tmp_path) as log:
            assert log.next_boot == 2
            log.raw(b"two")
        assert (tmp_path / "console.log").read_bytes() == b"onetwo"

    def test_half_a_line_is_ended(self, tmp_path: Path) -> None:
        """A follower that was killed while it wrote spoils one line, not two."""
        (tmp_path / "console.jsonl").write_text('{"boot": 3, "t": 1}\n{"boot": 3, "te')
        with ConsoleLog(tmp_path) as log:
            assert log.next_boot == 4
            log.add([line("x")], boot=4)
        assert json.loads((tmp_path / "console.jsonl").read_text().splitlines()[-1])["boot"] == 4

    def test_names_tell_machines_apart(self, tmp_path: Path) -> None:
        """Machines that share a directory have their own files."""
        with ConsoleLog(tmp_path, "fork-1"), ConsoleLog(tmp_path, "fork-2"):
            assert {
                f"fork-{n}.{file}" for n in (1, 2) for file in ("console.log", "console.jsonl", "firmware.log")
            } == {path.name for path in tmp_path.iterdir()}

    def test_a_full_disk_is_told_once_for_each_file(self, tmp_path: Path) -> None:
        """A full disk stops the writing, not the follower."""
        (tmp_path / "console.log").symlink_to("/dev/full")
        with ConsoleLog(tmp_path) as log:
            log.raw(b"x")
            log.raw(b"y")
            error = log.take_error()
            assert error is not None
            assert "console.log is cut short: No space left on device" in error
            assert log.take_error() is None

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        """An impossible results directory is an error of the host, with a hint."""
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be made") as caught:
            ConsoleLog(tmp_path / "file" / "results")
        assert "--vm-results" in (caught.value.hint or "")

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        """A log whose place is taken is an error of the host."""
        (tmp_path / "console.jsonl").mkdir()
        with pytest.raises(InputError, match="cannot be written"):
            ConsoleLog(tmp_path)
