"""The page, read by a parser; its guest is hostile."""

import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.guest.test_facts import MOUNTINFO
from vmtests.cli import main
from vmtests.errors import InputError
from vmtests.guest.facts import parse_mountinfo
from vmtests.report import booted, page, record, summary
from vmtests.report.against import compare
from vmtests.report.mountgraph import graph
from vmtests.report.record import read
from vmtests.report.trace import trace

HOSTILE = "</code></script><script>alert(1)</script><img src=http://x/ onerror=alert(1)>\"'{{7*7}}&lt;"


def results(directory: Path, *, initrd: float = 12.0, hostile: str = HOSTILE) -> Path:
    """Write what a machine leaves whose initrd took so many seconds and whose guest prints markup."""
    directory.mkdir()
    starts = {"firmware": 0.0, "bootloader": 2.0, "kernel": 3.0, "initrd": 5.0}
    seconds = {"firmware": 2.0, "bootloader": 1.0, "kernel": 2.0, "initrd": initrd}
    units = [
        {"unit": "sysroot.mount", "stage": "initrd", "began": 6.0, "ended": 6.0 + initrd / 2, "result": "done"},
        {"unit": hostile, "stage": "initrd", "began": 8.0, "ended": 9.0, "result": "failed"},
    ]
    timeline = {"boot": 1, "start": starts, "seconds": seconds, "units": units}
    verdict = {
        "verdict": "failed",
        "stage": "initrd",
        "cause": "init-missing",
        "sentence": f"no init: {hostile}",
        "hint": hostile,
        "owner": "image",
        "evidence": [{"t": 8.5, "source": "console", "text": hostile}],
    }
    lines = [(0.0, "firmware", "event", "power-on"), (3.0, "kernel", "console", "Linux version 6.12")]
    lines += [(5.0, "initrd", "console", "Running in initrd."), (8.5, "initrd", "console", hostile)]
    objects = [{"boot": 1, "t": t, "stage": s, "source": w, "text": text} for t, s, w, text in lines]
    (directory / "timeline.json").write_text(json.dumps(timeline))
    (directory / "verdict.json").write_text(json.dumps(verdict))
    (directory / "console.jsonl").write_text("".join(json.dumps(line) + "\n" for line in objects) + '{"boot": 1, "t"')
    (directory / "inspection.json").write_text(json.dumps({"breaches": [hostile], "partitions": [{"label": hostile}]}))
    return directory


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data


def test_nothing_a_guest_printed_is_markup(tmp_path: Path) -> None:
    """A page with a hostile guest has the elements of one with a harmless guest, and the guest's words as text."""
    hostile = Seen(page.write(results(tmp_path / "a")).read_text())
    harmless = Seen(page.write(results(tmp_path / "b", hostile="nothing")).read_text())
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [set(attrs) for _, attrs in hostile.elements] == [set(attrs) for _, attrs in harmless.elements]
    assert HOSTILE in hostile.text


def test_page_loads_nothing(tmp_path: Path) -> None:
    """No element names an address, and the policy allows none."""
    seen = Seen(page.write(results(tmp_path / "a")).read_text())
    assert not [tag for tag, attrs in seen.elements if {"src", "href", "style"} & set(attrs)]
    policies = [attrs["content"] or "" for tag, attrs in seen.elements if tag == "meta" and "http-equiv" in attrs]
    assert policies
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")


def test_slower_unit_and_stage_are_named(tmp_path: Path) -> None:
    """Against an earlier run, what takes more than a quarter longer is slower."""
    now, then = read(results(tmp_path / "now", initrd=20.0)), read(results(tmp_path / "then"))
    comparison = compare(now, then)
    assert [c.what for c in comparison.stages if c.word] == ["initrd"]
    assert [(c.what, c.word) for c in comparison.units] == [("sysroot.mount (initrd)", "slower")]
    assert "slower" in page.render(now, then)


def test_trace_has_each_unit_and_line(tmp_path: Path) -> None:
    """The Chrome trace has a span for each stage and unit, and an instant for each line, in microseconds."""
    events = trace(read(results(tmp_path / "a")).boots[0])["traceEvents"]
    assert isinstance(events, list)
    assert [e["ts"] for e in events if e.get("name") == "sysroot.mount"] == [6_000_000]
    assert [sum(e["ph"] == ph for e in events) for ph in "Xi"] == [6, 4]


def test_overlay_stands_on_its_layers() -> None:
    """The graph draws the overlay on the erofs below and on root above, and the bind over it."""
    drawn = graph(tuple(parse_mountinfo(MOUNTINFO)))
    assert drawn is not None
    assert {edge.name for edge in drawn.edges} == {"lowerdir", "upperdir", "bind"}


def test_directory_without_a_boot_is_bad_input(tmp_path: Path) -> None:
    """A directory in which no boot was followed is told in a sentence."""
    with pytest.raises(InputError, match=r"has no console\.jsonl"):
        page.write(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("timeline.json", '{"start": {}, "seconds": {"kernel": null}}'),
        ("timeline.json", '{"seconds": {"kernel": NaN}}'),
        ("timeline.json", '{"seconds": {"kernel": 1e308, "initrd": 1e308}}'),
        ("timeline.json", '{"units": [{"unit": "a", "stage": "kernel", "began": "x", "ended": 1.0}]}'),
        ("console.jsonl", '{"boot": 1, "t": Infinity, "text": "", "stage": "kernel", "source": "console"}'),
        ("verdict.json", '{"verdict": "failed", "stage": "", "sentence": "", "evidence": [{"t": NaN}]}'),
        ("inspection.json", '{"breaches": true}'),
        ("inspection.json", '{"partitions": ["esp"]}'),
        ("inspection.json", '{"breaches": ["\\ud800"]}'),
        ("inspection.json", '{"partitions": [{"size": 1%s}]}' % ("0" * 400)),
        ("junit.xml", '<testcase time="1.0s"/>'),
        ("junit.xml", '<testcase time="nan"/>'),
        ("junit.xml", '<?xml version="1.0" encoding="rot13"?><testcase/>'),
        ("junit.xml", f"<!-- {'x' * 5000} --><!DOCTYPE a [<!ENTITY e 'e'>]><testcase name='&e;'/>"),
        ("journal.export", f"__REALTIME_TIMESTAMP={'9' * 400}\n__MONOTONIC_TIMESTAMP=1\n"),
    ],
)
def test_results_of_other_types_are_a_sentence_or_left_out(tmp_path: Path, name: str, content: str) -> None:
    """Whoever wrote them: no time that is none, no list that is a number, no encoding and no entity."""
    place = results(tmp_path / "a")
    (place / name).write_text(content)
    with suppress(InputError):
        run = read(place)
        page.render(run, run)
        json.dumps(trace(run.boots[0]), allow_nan=False)
        booted.compare(run.boots, run.boots)
    assert summary.markdown(place).startswith("### vmtests: ")


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "nowhere"])
def test_results_that_are_no_files_are_left_out(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe that nobody writes into, a device without end and a link that leads nowhere are what was never left."""
    place = results(tmp_path / "a")
    os.mkfifo(place / "pipe")
    (place / "verdict.json").unlink()
    for name in ("console.log", "inspection.json", "journal.export", "junit.xml", "mounts.json", "mountinfo.txt"):
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(target)
    with stopped():
        (boot,) = read(place).boots
        assert main(["explain", str(place)]) == 2
    assert (boot.told.word, boot.mounts, boot.inspection, boot.heard) == ("unknown", (), None, False)
    assert "has no console.log" in capsys.readouterr().err


def test_tests_of_a_run_that_was_killed_are_those_that_were_written(tmp_path: Path) -> None:
    """A junit.xml is read as far as it goes; one with entities is none."""
    place = results(tmp_path / "a")
    whole = "<testcase name='a'><skipped message='m'/></testcase>"
    (place / "junit.xml").write_text(f"<testsuite>{whole}<testcase name='b'")
    (test,) = read(place).tests
    assert (test.name, test.outcome, test.message) == ("::a", "skipped", "m")
    (place / "junit.xml").write_text("<!DOCTYPE a [<!ENTITY e 'e'>]><testcase name='&e;'/>")
    with pytest.raises(InputError, match="DOCTYPE"):
        read(place)


def test_results_that_would_fill_the_memory_are_not_read(tmp_path: Path) -> None:
    """Of JSON and XML three bytes are an object of a hundred."""
    place = results(tmp_path / "a")
    for name, piece in (("inspection.json", "[],"), ("mounts.json", "{},")):
        (place / name).write_text(f"[{piece * (8 << 20)}")
    (place / "junit.xml").write_text(f"<testsuite><testcase name='a'>{'<a/>' * (4 << 20)}</testcase></testsuite>")
    tracemalloc.start()
    try:
        assert [test.name for test in read(place).tests] == ["::a"]
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_console_without_an_end_is_read_to_the_limit_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is one hole of exbibytes, as an archive may leave it."""
    place = results(tmp_path / "a")
    (place / "verdict.json").unlink()
    (place / "console.log").touch()
    monkeypatch.setattr(record, "LOG_LIMIT", 1 << 22)
    for name in ("console.log", "console.jsonl"):
        os.truncate(place / name, 1 << 40)
    with stopped():
        assert len(read(place).boots[0].lines) == 4


@contextmanager
def stopped() -> Iterator[None]:
    """Stop what does not end, in processor time or in waiting, before it has used up the memory."""

    def stop(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_page_is_not_written_where_a_link_of_somebody_elses_leads(tmp_path: Path) -> None:
    """Results of others may have a link in the place of their pages: it is replaced, and what it leads to is whole."""
    (victim := tmp_path / "victim").write_text("precious")
    place = results(tmp_path / "runs")
    for link in (place / "report.html", place / "trace.json", tmp_path / "trends.html"):
        link.symlink_to(victim)
    assert main(["report", str(place), "--history", str(tmp_path)]) == 0
    assert victim.read_text() == "precious"
    assert not (place / "report.html").is_symlink()
    (named := tmp_path / "named.html").symlink_to(victim)
    assert main(["report", str(place), "--out", str(named)]) == 0
    assert victim.read_text().startswith("<!doctype html>")
