"""What others read of a run: junit's properties, pytest-html's extras, GitHub's, and what is run again."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import pytest

from tests.plugin.test_boot import _CONFTEST, _TESTS
from vmtests.report import page, summary

Run = Callable[..., pytest.RunResult]
_HOST = _CONFTEST.replace("owner=Owner.IMAGE", "owner=Owner.HOST")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """A function that runs pytest with the plugin and the two that are spoken to here."""
    return lambda *arguments: pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-p", "no:syrupy", *arguments)


def leave(directory: Path, image: Path) -> None:
    """Write what the machine of a run leaves."""
    directory.mkdir(exist_ok=True)
    (directory / "booted.json").write_text(json.dumps({"image": "disk.raw", "path": str(image), "machine": "kvm"}))
    verdict = {
        "verdict": "failed",
        "stage": "initrd",
        "cause": "mount-failed",
        "owner": "image",
        "sentence": "no | root",
    }
    (directory / "verdict.json").write_text(json.dumps(verdict))
    (directory / "timeline.json").write_text(json.dumps({"seconds": {"firmware": 1.5, "initrd": 12.25}}))
    (directory / "console.log").write_bytes(b"<script>\x1b[2Jhello\n")


def test_junit_says_what_was_booted(pytester: pytest.Pytester, run: Run) -> None:
    """The suite's properties have the verdict, the image and its digest, and the seconds of each stage."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    image = pytester.path / "disk.raw"
    image.write_bytes(b"disk")
    leave(pytester.path / "results", image)
    run("--vm-results=results")
    suite = ElementTree.parse(pytester.path / "results/junit.xml").getroot().iter("property")
    known = {p.get("name"): p.get("value") for p in suite}
    assert known["vmtests.verdict"] == "failed"
    assert known["vmtests.seconds.initrd"] == "12.250"
    assert known["vmtests.image.digest"] == f"sha256:{hashlib.sha256(b'disk').hexdigest()}"


def test_run_without_junit_ends_as_any(pytester: pytest.Pytester, run: Run) -> None:
    """`-p no:junitxml` is anybody's choice: a run with machines ends by its tests, not by an error of ours."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    result = run("-p", "no:junitxml")
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def _no_room(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device", "results/junit.xml")


def test_full_disk_costs_junit_xml_and_no_more(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is told all the same, and why there is no junit.xml: pytest would show a traceback instead."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    monkeypatch.setattr("_pytest.junitxml.open", _no_room, raising=False)
    result = run("--vm-results=results")
    result.stdout.fnmatch_lines(["junit.xml: none: this host gives no more: No space left on device*", "*3 errors*"])
    told = result.stdout.str() + result.stderr.str()
    assert not re.search("Traceback|INTERNALERROR|generated xml", told)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not (pytester.path / "results/junit.xml").exists()


def test_host_that_gives_no_more_costs_the_report_and_no_more(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the page nor the properties of junit.xml are worth the summary of the tests."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    monkeypatch.setattr(summary, "properties", _no_room)
    monkeypatch.setattr(page, "write", _no_room)
    result = run("--vm-results=results")
    result.stdout.fnmatch_lines(["report: none: this host gives no more: No space left on device*", "*3 errors*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (pytester.path / "results/junit.xml").exists()


def test_ctrl_c_while_the_report_is_written(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is shown, the exit status is that of a run that was interrupted, and nobody sees a traceback."""

    def stop(_: Path) -> NoReturn:
        raise KeyboardInterrupt

    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    monkeypatch.setattr(page, "write", stop)
    result = run("--vm-results=results")
    result.stdout.fnmatch_lines(["report: none: interrupted", "results: *", "*3 errors*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_only_host_and_cloud_are_tried_again(pytester: pytest.Pytester, run: Run) -> None:
    """With --reruns a boot that the host spoiled is run again, one that the image spoiled is not."""
    pytester.makepyfile("def test_first(vm): pass")
    pytester.makeconftest(_HOST)
    assert "1 rerun" in run("--vm-results=results", "--reruns=1").stdout.str()
    pytester.makeconftest(_CONFTEST)
    assert "rerun" not in run("--vm-results=results", "--reruns=1").stdout.lines[-1]


def test_test_that_says_it_is_flaky_is_believed(pytester: pytest.Pytester, run: Run) -> None:
    """A marker at the test is its author's word."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile("import pytest\n@pytest.mark.flaky(reruns=1)\ndef test_first(vm): pass")
    assert "1 rerun" in run("--vm-results=results").stdout.str()


def test_github_is_told_in_its_own_commands(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An annotation a failure, at its place in the repository, and a summary in which nothing of a guest is markup."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(test_it="def test_first(vm): pass")
    leave(pytester.path / "results", Path("/nowhere"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    result = run("--vm-results=results")
    (told,) = (line for line in result.outlines if line.startswith("::error "))
    assert told.startswith(
        f"::error file={pytester.path.name}/test_it.py,line=1,title=test_first::boot failed in initrd"
    )
    told = (pytester.path / "summary.md").read_text()
    assert "| firmware | initrd |" in told
    assert "no &#124; root" in told


def test_guest_gives_no_orders_to_ci(pytester: pytest.Pytester, run: Run) -> None:
    """What a guest has said is in assertions, local variables and output: a runner reads it as any other line."""
    pytester.makeconftest("import pytest\n@pytest.fixture(scope='session')\ndef _vmtests_machines(): pass")
    pytester.makepyfile(
        """
        import pytest

        def test_said(_vmtests_machines):
            said = "##vso[task.complete result=Succeeded]"
            print("::error::", said)
            assert said == "right"

        def test_told(_vmtests_machines):
            pytest.fail("##vso[task.complete]" + chr(10) + "::error::x", pytrace=False)

        def test_well(_vmtests_machines):
            print("##vso[task.complete]")
        """
    )
    for style in ("long", "short", "line", "native", "no"):
        result = run("--showlocals", "-rA", f"--tb={style}")
        result.assert_outcomes(failed=2, passed=1)
        lines = [line for line in result.outlines if "##vso[" in line or line.lstrip().startswith("::")]
        assert lines == [line for line in lines if line.lstrip("> ").startswith(("said = ", "pytest.fail(", "print("))]


def test_run_without_a_terminal_has_its_report(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody else prints (`-p no:terminal`) report and summary are written as in any run."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile("def test_first(vm): pass")
    leave(pytester.path / "results", Path("/nowhere"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    written: list[Path] = []
    monkeypatch.setattr(page, "write", written.append)
    run("--vm-results=results", "-p", "no:terminal")
    assert [pytester.path / "results"] == written
    assert "| firmware | initrd |" in (pytester.path / "summary.md").read_text()


def test_html_page_links_report_and_console(pytester: pytest.Pytester, run: Run) -> None:
    """pytest-html's page has the link; where it makes none, nothing is attached."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile("def test_first(vm): pass")
    run("--vm-results=results", "--html=page.html", "--self-contained-html")
    assert "boot report" in (pytester.path / "page.html").read_text()


def test_digest_is_taken_anew_when_the_image_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept in the cache; an image that is gone has none."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    image = tmp_path / "disk.raw"
    image.write_bytes(b"one")
    assert summary.digest_of(image) == summary.digest_of(image) == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    image.write_bytes(b"other")
    assert summary.digest_of(image) == f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    # `cp -a` over it leaves size, time of modification and inode as they were.
    before = image.stat()
    image.write_bytes(b"again")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert summary.digest_of(image) == f"sha256:{hashlib.sha256(b'again').hexdigest()}"
    assert summary.digest_of(tmp_path / "none") == ""
