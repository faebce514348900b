"""Many runs: simulated on the timings of recorded boots, with many seeds, and from the command line."""

import json
import random
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.cli import main
from vmtests.errors import InputError
from vmtests.report import history, noise
from vmtests.report.history import Budget, Rule

# What each of six stages took in each of four recorded cold boots of the reference image without KVM, over the median
# of the four: the fourth was on a busier host, and the first two stages take two seconds or three.
SCATTER = (
    0.99, 1.37, 1.01, 0.99, 0.98, 1.17, 1.02, 0.97, 0.97, 1.03, 0.96, 1.11, 0.97, 1.03, 0.96, 1.29, 0.97, 1.02, 0.97,
    1.56, 0.81, 1.08, 0.92, 1.87,
)  # fmt: skip
QUIET = tuple(scatter for place, scatter in enumerate(SCATTER) if place >= 8 and place % 4 != 3)
RECORDED = tuple(13.52 * scatter for scatter in (*QUIET, *QUIET[:8]))


def boots(rng: random.Random, scatter: Sequence[float], factor: float = 1.0) -> list[float]:
    """Twenty boots that are drawn from the recorded ones, each a little beside them."""
    return [13.52 * rng.choice(scatter) * rng.gauss(1.0, 0.02) * factor for _ in range(20)]


def alarms(scatter: Sequence[float], factor: float, seeds: int) -> int:
    """Return of how many seeds the twenty boots after the first twenty give an alarm."""
    found = [
        noise.slower([*boots(rng := random.Random(seed), scatter), *boots(rng, scatter, factor)])
        for seed in range(seeds)
    ]
    return sum(slow is not None and slow.sure for slow in found)


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
    """Twenty boots at 1.3 x after twenty as ever: an alarm, whatever the seed; on a busy host seldom none."""
    assert alarms(QUIET, 1.3, 40) == 40
    assert alarms(SCATTER, 1.3, 40) >= 32


def test_stage_that_did_not_change_gives_no_alarm() -> None:
    """Of 150 series that did not change none gives an alarm; on a busy host less than 1 of 100."""
    assert alarms(QUIET, 1.0, 150) == 0
    assert alarms(SCATTER, 1.0, 100) <= 2


def test_few_runs_are_no_proof() -> None:
    """One slow run after twenty is only a suspicion; with three more like it there is an alarm."""
    base = list(RECORDED)
    one = noise.slower([*base, 26.0])
    assert one is not None
    assert not one.sure
    four = noise.slower([*base, 26.0, 27.0, 25.5, 26.2])
    assert four is not None
    assert (four.sure, four.runs) == (True, 4)
    assert four.now == statistics.median([26.0, 27.0, 25.5, 26.2])


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
    assert "less than 1 of 10,000" in page


def test_steady_runs_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of runs that are as ever."""
    rng = random.Random(2)
    directory = write(tmp_path / "runs", 40, initrd=lambda _: rng.choice(RECORDED))
    assert main(["report", "--history", str(directory), "--no-slower", "--budget", "boot<60s"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(directory / "trends.html")]


def test_reboots_are_no_boots_of_the_image(tmp_path: Path) -> None:
    """Of each machine its first boot counts; of one that the host spoilt, the next."""
    base = write(tmp_path, 2, initrd=lambda _: 5.0)
    for name, owner in (("run000", None), ("run001", "host")):
        timeline = json.loads((base / name / "timeline.json").read_text())
        timeline["boot"], timeline["seconds"]["initrd"] = 2, 50.0
        (base / name / "timeline-2.json").write_text(json.dumps(timeline))
        (base / name / "verdict.json").write_text(json.dumps({"owner": owner}))
        (base / name / "verdict-2.json").write_text(json.dumps({"verdict": "ready"}))
    (trend,) = history.read(base)
    assert [5.0, 50.0] == [run.seconds["initrd"] for run in trend.runs]


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


@pytest.mark.parametrize("text", ["1", "0.9x20", "1.25x1", "1.25x500", "x20", "1.25x", "fast"])
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


@pytest.mark.parametrize("value", ["1e999", "1" + "0" * 400, "[" * 100_000, '{"a":' * 50_000])
@pytest.mark.parametrize("argument", [["--history"], []])
def test_results_that_somebody_else_wrote_are_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, argument: list[str]
) -> None:
    """A number that no float is, or no end of brackets, where a time should be: one sentence, as for no results."""
    (run := tmp_path / "run").mkdir()
    (run / "console.jsonl").write_text(
        f'{{"boot": 1, "t": {value}, "text": "", "stage": "kernel", "source": "ttyS0"}}\n'
    )
    (run / "timeline.json").write_text(f'{{"boot": {value}, "start": {{"firmware": {value}}}, "seconds": {{}}}}')
    (run / "verdict.json").write_text(f'{{"verdict": "ready", "evidence": [{{"t": {value}}}]}}')
    main(["report", *argument, str(tmp_path if argument else run)])
    assert capsys.readouterr().err.startswith("vmtests: ") or value.startswith(("[", "{"))
