"""No bytes bring a parser down: it ends in time, in little memory, with an answer or an error that is its own.

The short form looks at a few hundred inputs of each; `make fuzz` at as many as fit in FUZZ_SECONDS for each parser.
"""

import os
import time
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.trials.fuzz.images import IMAGES
from tests.trials.fuzz.limits import Judge
from tests.trials.fuzz.lines import hurried
from tests.trials.fuzz.parsers import PARSERS
from vmtests.image.check import Check, Status

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES, SLOW = 12, 4

_EDGES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\0" * 64,
    b"\x80",
    b"\x01\0\0\0",
    b"-1",
)


@st.composite
def _changed(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Give a good example with bytes written over, cut, doubled, or put in; or any bytes at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=2000))
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 6))):
        # The beginning has most of what is a number.
        reach = draw(st.sampled_from((64, 512, 2048, max(len(data), 1))))
        at = draw(st.integers(0, max(min(reach, len(data)) - 1, 0)))
        what = draw(st.one_of(st.sampled_from(_EDGES), st.binary(min_size=1, max_size=8)))
        match draw(st.integers(0, 4)):
            case 0 | 1 | 2:
                data[at : at + len(what)] = what
            case 3:
                data[at:at] = what if draw(st.booleans()) else bytes(data[at : at + draw(st.integers(1, 600))])
            case _:
                del data[at : at + draw(st.integers(1, 600))]
    return bytes(data)


@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_bring_it_down(name: str) -> None:
    """What is good is read, and whatever else others wrote is, or is refused in the parser's own words."""
    parser = PARSERS[name]
    good = parser.good()
    for one in good:
        parser.call(one)  # what it imports takes its time once
    judge = Judge(parser)
    for one in good:
        judge(one)
    quiet = list(HealthCheck)
    until = time.monotonic() + SECONDS

    def look(examples: int, phases: tuple[Phase, ...], *, seeded: bool) -> Callable[[], None]:
        @settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=quiet, phases=phases,
            derandomize=seeded,
        )  # fmt: skip
        @given(_changed(good))
        def run(data: bytes) -> None:
            judge(data)

        return run

    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    with hurried():
        for one in parser.found:
            judge(one)
        look(SLOW if parser.slow else EXAMPLES, phases, seeded=True)()
        while time.monotonic() < until:
            look(100 if parser.slow else 2000, phases, seeded=False)()
    if SECONDS:
        print(f"{name}: {judge} in {SECONDS:.0f} s")


def test_good_ways_to_boot_lead_to_a_root() -> None:
    """What the ways to boot are fuzzed with goes through firmware, boot loader, kernel and initrd to init."""
    way = IMAGES["ways to boot"]
    for one in way.good():
        checks = cast("list[Check]", way.call(one))
        assert [str(check) for check in checks if check.status is not Status.OK] == []
        assert "root /dev/sda2" in str(checks[-1])
