"""Two images as they boot: simulated boots, whose times scatter as recorded ones, and what else differs."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.test_history import QUIET, SCATTER
from vmtests.boot.stages import Stage
from vmtests.boot.units import Unit
from vmtests.guest.facts import Mount, parse_mountinfo
from vmtests.report.booted import Booted, compare
from vmtests.report.record import Boot, Told, read

SECONDS = {Stage.FIRMWARE: 2.0, Stage.BOOTLOADER: 1.5, Stage.KERNEL: 6.0, Stage.INITRD: 13.5, Stage.SWITCH_ROOT: 6.0}
RECORDED = Path(__file__).with_name("boots")


def boot(
    rng: random.Random,
    scatter: Sequence[float] = QUIET,
    *,
    initrd: float = 1.0,
    failed: Sequence[str] = (),
    mounts: Sequence[Mount] = (),
    units: int = 60,
) -> Boot:
    """Return a boot whose times are drawn from recorded ones, and in which stage 1 takes so many times as long."""

    def about(seconds: float) -> float:
        return seconds * rng.choice(scatter) * rng.gauss(1.0, 0.02)

    seconds = {stage: about(took) * (initrd if stage is Stage.INITRD else 1.0) for stage, took in SECONDS.items()}
    starts, t = {}, 0.0
    for stage in Stage:
        starts[stage] = t
        t += seconds.get(stage, 0.0)
    told = [
        Unit(name=f"u{n}.service", stage=Stage.INITRD, began=1.0, ended=1.0 + about(2.0), result="done")
        for n in range(units)
    ]
    told += [Unit(name=name, stage=Stage.USERSPACE, began=1.0, ended=2.0, result="failed") for name in failed]
    return Boot(
        name="", number=1, told=Told(word="ready", stage="ready", sentence=""), starts=starts, seconds=seconds,
        units=tuple(told), lines=(), cut=0, inspection=None, mounts=tuple(mounts),
    )  # fmt: skip


def compared(seed: int, count: int, scatter: Sequence[float], factor: float) -> Booted:
    """Compare so many boots of an image with as many of one whose stage 1 takes `factor` times as long."""
    rng = random.Random(seed)
    return compare(
        [boot(rng, scatter) for _ in range(count)], [boot(rng, scatter, initrd=factor) for _ in range(count)]
    )


def called(found: Booted) -> list[str]:
    """Return what is called slower or faster, and not only perhaps."""
    return [times.name for times in (*found.stages, *found.units) if times.word in {"slower", "faster"}]


@pytest.mark.parametrize(("count", "scatter"), [(5, QUIET), (5, SCATTER), (8, SCATTER)])
def test_images_that_do_not_differ_are_seldom_called_so(count: int, scatter: Sequence[float]) -> None:
    """Of 60 comparisons with 65 times each at most 1 in 10 calls any of them slower or faster."""
    assert sum(bool(called(compared(seed, count, scatter, 1.0))) for seed in range(60)) <= 6


@pytest.mark.parametrize(("count", "least"), [(5, 28), (8, 40)])
def test_stage_that_is_30_percent_slower_is_found(count: int, least: int) -> None:
    """In most of 40 comparisons with five boots each, in all with eight; something else is named now and then only."""
    found = [called(compared(seed, count, QUIET, 1.3)) for seed in range(40)]
    assert sum("initrd" in names for names in found) >= least
    assert sum(not {"initrd"}.issuperset(names) for names in found) <= 4


def test_few_boots_are_no_proof() -> None:
    """One boot each says perhaps."""
    found = compared(1, 1, QUIET, 1.6)
    assert called(found) == []
    assert {times.name: times.word for times in found.stages}["initrd"] == "perhaps slower"


def test_what_half_of_the_boots_have_not_is_no_difference() -> None:
    """A unit that fails now and then is none of the image's; one that fails each time is named, as a mount is."""
    rng = random.Random(4)
    line = "36 25 0:31 / /srv rw,nosuid - ext4 /dev/sdb rw\n"
    one = [boot(rng, failed=("often.service",) if n == 0 else ()) for n in range(4)]
    other = [boot(rng, failed=("always.service",), mounts=tuple(parse_mountinfo(line))) for _ in range(4)]
    told = [(d.section, d.name, str(d.word)) for d in compare(one, other).differences]
    assert told == [("failed unit", "always.service (system)", "added"), ("mount", "/srv", "added")]


def test_recorded_boots_of_two_images_differ_in_what_they_mount() -> None:
    """A real NixOS with the store as an overlay of the kernel's, and one with localOverlayStore."""
    one, other = (list(read(RECORDED / name).boots) for name in ("nixos", "nixos-overlay-store"))
    found = compare(one, other)
    assert [times.name for times in found.stages] == [str(stage) for stage in list(Stage)[:-1]]
    assert all("fail" not in d.section for d in found.differences)
    assert called(found) == []
