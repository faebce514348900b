"""The search for the first bad one, with all answers, and the command with a real shell in the place of a boot."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.cli import main
from vmtests.errors import InputError
from vmtests.report.bisect import Bisection, Word


@given(st.integers(2, 200), st.data())
def test_first_bad_one_is_found_in_few_steps(count: int, data: st.DataObject) -> None:
    """Whichever it is; with two ends that are tried as well, in about log2 of all."""
    first = data.draw(st.integers(1, count - 1))
    search = Bisection([str(n) for n in range(count)])
    while (n := search.next) is not None:
        search.note(n, Word.BAD if n >= first else Word.GOOD)
    assert search.first_bad == (str(first),)
    assert len(search.known) <= 2 + (count - 1).bit_length()


@given(st.integers(2, 60), st.data())
def test_skipped_ones_leave_those_it_may_be(count: int, data: st.DataObject) -> None:
    """The first bad one is among those that are told, and no good one is."""
    first = data.draw(st.integers(1, count - 1))
    skipped = data.draw(st.sets(st.integers(1, max(count - 2, 1))))
    search = Bisection([str(n) for n in range(count)])
    while (n := search.next) is not None:
        ends = n in {0, count - 1}
        search.note(n, Word.SKIP if n in skipped and not ends else Word.BAD if n >= first else Word.GOOD)
    assert str(first) in search.first_bad
    assert all(int(name) in skipped for name in search.first_bad[:-1])


def test_ends_have_to_be_good_and_bad() -> None:
    """A last one that is good, and a first one that is bad, are told as bad input."""
    with pytest.raises(InputError, match="c, the last, is good"):
        Bisection(["a", "b", "c"]).note(2, Word.GOOD)
    with pytest.raises(InputError, match="a, the first, is bad"):
        Bisection(["a", "b", "c"]).note(0, Word.BAD)


def test_command_makes_and_judges_revisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `git bisect run`: 125 of the maker or the judge skips; the first bad one is printed."""
    (tmp_path / "list").write_text("# revisions\n" + "".join(f"r{n}\n" for n in range(12)))
    make = f"test {{}} != r6 || exit 125; echo {{}} >> {tmp_path}/log; echo {tmp_path}/{{}}.raw"
    judge = "case {} in */r[0-4].raw) exit 0;; */r7.raw) exit 125;; *) exit 1;; esac"
    command = ["bisect", "--list", str(tmp_path / "list"), "--make", make, "--run", judge]
    assert main([*command, "--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == "first bad: r5\n"
    tried = (tmp_path / "log").read_text().split()
    assert main([*command, "--results", str(tmp_path / "results"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_bad"] == ["r5"]
    assert (tmp_path / "log").read_text().split()[len(tried) :] in ([], ["r7"])  # what was known is not tried again


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["one"], "needs two at least"),
        (["a", "b", "--run", "false"], r"has no \{\}"),
        (["a", "b", "--make", "false {}"], "--make ended with 1 for b"),
        (["a", "b", "--run", "exit 200 {}"], "--run ended with 200"),
        (["--list", "/nowhere"], "/nowhere cannot be read"),
        (["a", "b", "--budget", "x"], "is no budget"),
    ],
)
def test_bad_input_of_a_bisection_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a hint, and exit status 2."""
    assert main(["bisect", *arguments, "--results", str(tmp_path / "r")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    import re

    assert re.search(told, error)
    assert "hint: " in error or "cannot be read" in error


def test_command_ends_with_the_search(tmp_path: Path) -> None:
    """Also after `kill -9`: what was started for it, and what that has started, is gone."""
    os.mkfifo(tmp_path / "lives")
    lives = os.open(tmp_path / "lives", os.O_RDONLY | os.O_NONBLOCK)
    run = f"(echo; exec sleep 600) >{tmp_path}/lives & wait  # {{}}"
    command = [sys.executable, "-m", "vmtests.cli", "bisect", "--run", run, "--results", str(tmp_path / "r"), "a", "b"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as search:
        try:
            assert select.select([lives], [], [], 20)[0] == [lives]
            assert os.read(lives, 10) == b"\n"
        finally:
            search.kill()
        assert select.select([lives], [], [], 10)[0] == [lives]
        assert os.read(lives, 10) == b""
    os.close(lives)
