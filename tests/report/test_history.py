"""Many runs: simulated on the timings of recorded boots, with many seeds, and from the command line."""

import json
import random
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.cli import main
from vmtests.errors import InputError
from vmtests.report import history, noise
from vmtests.report.history import Budget, Rule

# Seconds of initrd of twenty cold boots of the reference image in a row, without KVM, on two busy cores.
RECORDED = (
    9.92, 10.41, 9.57, 10.02, 9.88, 11.36, 9.71, 10.15, 10.77, 9.83, 9.96, 10.28, 12.94, 9.79, 10.09, 9.66, 10.51,
    9.9, 10.2, 11.02,
)  # fmt: skip


def boots(rng: random.Random, factor: float = 1.0) -> list[float]:
    """Twenty boots that are drawn from the recorded ones, each a little beside them."""
    return [rng.choice(RECORDED) * rng.gauss(1.0, 0.02) * factor for _ in range(20)]


def write(base: Path, runs: int, *, initrd: Callable[[int], float], firmware: float = 2.0) -> Path:
    """Write a directory of runs, one a day."""
    for n in range(runs):
        place = base / f"run{n:03}"
        place.mkdir(parents=True)
        seconds = {"firmware": firmware, "bootloader": 1.0, "kernel": 3.0, "initrd": initrd(n), "switch-root": 1.0}
        start, t = {}, 0.0
        for stage in Stage:
            start[str(stage)] = t
            t += seconds.get(str(stage), 5.0)
        began = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=n)
        timeline = {"boot": 1, "started": began.isoformat(), "start": start, "seconds": seconds, "units": []}
        (place / "timeline.json").write_text(json.dumps(timeline))
        (place / "booted.json").write_text(json.dumps({"image": "disk.raw", "machine": "kvm"}))
        (place / "console.jsonl").write_text(
            '{"boot": 1, "t": 0, "stage": "firmware", "source": "console", "text": ""}'
        )
    return base


def test_chance_is_exact() -> None:
    """It is the share of all ways to deal the values out that rank as high: counted one by one, ties and all."""
    now, before = [3.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0, 4.5]
    ranks = [2 * sum(o < v for o in [*now, *before]) + [*now, *before].count(v) + 1 for v in [*now, *before]]
    deals = [sum(deal) for deal in combinations(ranks, 3)]
    assert noise.chance(now, before) == sum(deal >= sum(ranks[:3]) for deal in deals) / len(deals)


def test_stage_that_is_slowed_by_30_percent_is_found() -> None:
    """Twenty boots at 1.3 x after twenty as ever: an alarm, whatever the seed."""
    found = [noise.slower([*boots(rng := random.Random(seed)), *boots(rng, 1.3)]) for seed in range(60)]
    assert all(slow is not None and slow.sure for slow in found)


def test_stage_that_did_not_change_gives_no_alarm() -> None:
    """Of 300 series that did not change none gives an alarm; of some that are as noisy as a busy host, 1 in 100."""
    steady = [noise.slower([*boots(rng := random.Random(seed)), *boots(rng)]) for seed in range(300)]
    assert not [slow for slow in steady if slow is not None and slow.sure]
    wild = [
        noise.slower([10 * random.Random(f"{seed}.{n}").lognormvariate(0, 0.3) for n in range(40)])
        for seed in range(150)
    ]
    assert sum(slow is not None and slow.sure for slow in wild) <= 0.02 * 150


def test_few_runs_are_no_proof() -> None:
    """One slow run after twenty is only a suspicion; with four like it there is an alarm."""
    base = list(RECORDED)
    one = noise.slower([*base, 20.0])
    assert one is not None
    assert not one.sure
    four = noise.slower([*base, 20.0, 21.0, 19.5, 20.2])
    assert four is not None
    assert (four.sure, four.runs) == (True, 4)
    assert four.now == statistics.median([20.0, 21.0, 19.5, 20.2])


def test_slower_stage_ends_with_1_and_its_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`vmtests report --history --no-slower` says which stage, by how much and how sure, and draws it."""
    rng = random.Random(1)
    directory = write(tmp_path / "runs", 40, initrd=lambda n: rng.choice(RECORDED) * (1.3 if n >= 20 else 1.0))
    assert main(["report", "--history", str(directory), "--no-slower"]) == 1
    told = capsys.readouterr().out
    assert "disk.raw (kvm): initrd took" in told
    assert "the rule is 1.25 x" in told
    page = (directory / "trends.html").read_text()
    assert page.count("<circle") == 40 * 6
    assert "initrd took" in page


def test_steady_runs_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of runs that are as ever."""
    rng = random.Random(2)
    directory = write(tmp_path / "runs", 40, initrd=lambda _: rng.choice(RECORDED))
    assert main(["report", "--history", str(directory), "--no-slower", "--budget", "boot<60s"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(directory / "trends.html")]


def test_too_few_runs_cannot_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and how many it takes."""
    directory = write(tmp_path / "runs", 4, initrd=lambda _: 10.0)
    assert main(["report", "--history", str(directory), "--no-slower"]) == 2
    assert "cannot tell of" in capsys.readouterr().out


def test_slower_host_is_not_the_images_fault(tmp_path: Path) -> None:
    """Where the firmware has become slower as well, nobody can tell."""
    write(tmp_path, 20, initrd=lambda _: 10.0)
    write(tmp_path / "more", 20, initrd=lambda _: 15.0, firmware=3.0)
    for n, place in enumerate(sorted((tmp_path / "more").iterdir())):
        timeline = json.loads((place / "timeline.json").read_text())
        timeline["started"] = (datetime(2026, 12, 1, tzinfo=UTC) + timedelta(days=n)).isoformat()
        (place / "timeline.json").write_text(json.dumps(timeline))
        place.rename(tmp_path / f"run{20 + n:03}")
    (trend,) = history.read(tmp_path)
    (found,) = (finding for finding in history.slower(trend, Rule()) if finding.stage == "initrd")
    assert found.unknown
    assert "this host is slower" in found.sentence


def test_budget_is_of_the_newest_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage that breaks its budget is named with both times; of one that was not passed nobody can tell."""
    directory = write(tmp_path / "runs", 3, initrd=lambda n: 13.1 if n == 2 else 20.0)
    (trend,) = history.read(directory)
    (found,) = history.over_budget(trend, [Budget.parse("initrd<12s"), Budget.parse("boot < 1min")])
    assert found.sentence == "initrd took 13.10 s in run002, and its budget is 12 s"
    assert main(["report", str(directory / "run002"), "--budget", "initrd<12s"]) == 1
    assert found.sentence in capsys.readouterr().out


@pytest.mark.parametrize("text", ["initrd", "initrd<", "nothing<3s", "initrd<-1s", "initrd<12h", ""])
def test_budget_that_is_none_is_bad_input(text: str) -> None:
    """What is no stage and no time is told with what they are."""
    with pytest.raises(InputError, match="is no budget"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["1", "0.9x20", "1.25x1", "x20", "1.25x", "fast"])
def test_rule_that_is_none_is_bad_input(text: str) -> None:
    """A factor of one or less, or a single run, is no rule."""
    with pytest.raises(InputError, match="is no rule"):
        Rule.parse(text)


def test_directory_without_runs_is_bad_input(tmp_path: Path) -> None:
    """An empty directory, and what is no timeline, are told in a sentence."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/timeline.json").write_text('{"start": {"no-stage": 1}}')
    with pytest.raises(InputError, match="no run with a timeline"):
        history.read(tmp_path)
