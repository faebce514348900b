"""What dead runs have left is found and removed: by their ledgers, and what those did not know by labels."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gce.conftest import FAST, everything
from tests.gce.test_session import run
from vmtests import cli
from vmtests.emulator import Emulator
from vmtests.emulator.faults import Fault, FaultKind
from vmtests.gce.cloud import Cloud
from vmtests.gce.ledger import Ledger, directory
from vmtests.gce.reaper import Fate, reap
from vmtests.gce.session import Session
from vmtests.gce.settings import Settings


class Killed(BaseException):
    """The process has been killed: nothing of it runs any more."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[[], None]]:
    """A function that has the process die right after its nth request; what it returns revives it."""
    real_send, real_write = requests.Session.send, Ledger._write

    def plan(number: int) -> Callable[[], None]:
        count = itertools.count(1)
        dead = False

        def send(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
            nonlocal dead
            if dead:
                raise Killed
            answer = real_send(self, *args, **kwargs)
            if dead := next(count) == number:
                raise Killed
            return answer

        def write(self: Ledger, line: Any) -> None:
            if dead:
                raise Killed
            real_write(self, line)

        monkeypatch.setattr(requests.Session, "send", send)
        monkeypatch.setattr(Ledger, "_write", write)

        def revive() -> None:
            monkeypatch.setattr(requests.Session, "send", real_send)
            monkeypatch.setattr(Ledger, "_write", real_write)

        return revive

    return plan


@pytest.fixture
def died(settings: Settings, packed: Path, kill: Callable[[int], Callable[[], None]]) -> Session:
    """A run that died after it had made everything."""
    session = Session(settings, pace=FAST)
    revive = kill(10**6)
    session.__enter__()
    run(session, packed)
    session._ledger.__exit__(None, None, None)
    revive()
    return session


def test_death_after_any_request_leaves_nothing_that_is_not_found(
    emulator: Emulator,
    settings: Settings,
    packed: Path,
    cloud: Cloud,
    kill: Callable[[int], Callable[[], None]],
) -> None:
    """Killed after any single request, a run leaves only what the next collection removes: 0 are left."""
    left: list[int] = []
    for number in range(1, 200):
        revive = kill(number)
        try:
            with Session(settings, pace=FAST) as session:
                run(session, packed)
        except Killed:
            revive()
        else:
            revive()
            break
        left.append(sum(map(len, everything(emulator).values())))
        list(reap(cloud, time.time()))
        assert ({}, []) == (everything(emulator), list(directory().iterdir())), f"died after request {number}"
    assert len(left) > 10
    assert max(left) == 4


def test_dry_run_removes_nothing(emulator: Emulator, died: Session, cloud: Cloud) -> None:
    """With `dry_run` everything that would be removed is named, and stays."""
    found = list(reap(cloud, time.time(), dry_run=True))
    assert [(kind, Fate.WOULD) for kind in ("instance", "image", "object")] == [
        (str(one.thing.kind), one.fate) for one in found if "ledger" in one.by
    ]
    assert ["disks", "images", "instances", "objects"] == sorted(everything(emulator))


def test_what_no_ledger_knows_goes_by_its_labels(emulator: Emulator, died: Session, cloud: Cloud) -> None:
    """Without a ledger things stay until they expire, in every zone and of every kind, and then go."""
    for path in directory().iterdir():
        path.unlink()
    assert {Fate.KEPT} == {found.fate for found in reap(cloud, time.time())}
    found = list(reap(cloud, time.time() + 4000))
    assert {Fate.REMOVED} == {one.fate for one in found}
    assert ["image", "instance", "object"] == sorted(str(one.thing.kind) for one in found)
    assert {} == everything(emulator)


def test_instance_that_nobody_collects_goes_by_itself(emulator: Emulator, died: Session) -> None:
    """Without ledger and collection the instance, with its disk, is deleted when its time is over."""
    emulator.timers.advance(3601)
    changed = emulator.instances._cloud.changed
    with changed:
        assert changed.wait_for(lambda: not emulator.instances._instances, 10)
    assert {"instances", "disks"}.isdisjoint(everything(emulator))


def test_living_runs_are_left_alone(emulator: Emulator, settings: Settings, packed: Path, cloud: Cloud) -> None:
    """A run that lives loses nothing to a collection."""
    with Session(settings, pace=FAST) as session:
        run(session, packed)
        before = everything(emulator)
        assert {Fate.KEPT} == {found.fate for found in reap(cloud, time.time())}
        assert before == everything(emulator)


def test_ledger_of_an_emulator_that_ended_is_forgotten(died: Session, emulator: Emulator, settings: Settings) -> None:
    """An emulator takes everything with it: its ledgers are not kept for ever."""
    emulator.__exit__(None, None, None)
    with Emulator(hypervisor=emulator.hypervisor) as other:
        found = list(reap(Cloud(Settings.find(endpoint=other.endpoint), FAST), time.time()))
    assert ([], []) == (found, list(directory().iterdir()))


@pytest.mark.parametrize("head", [b'{"brand": 1}', b"\0" * 40])
def test_ledger_that_cannot_be_read_is_told_and_stays(
    died: Session, emulator: Emulator, cloud: Cloud, head: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged one, one of another version or another user's may name things, and keeps no other from being read."""
    (path,) = directory().iterdir()
    path.write_bytes(head + b"\n" + path.read_bytes().partition(b"\n")[2])
    other = directory() / "0.jsonl"
    other.mkdir()  # who may not open a file, or opens no file, is told so by the system alike
    assert {Fate.KEPT} == {found.fate for found in reap(cloud, time.time())}
    said = capsys.readouterr().err.replace("\n", "")
    assert (2, 2) == (said.count("is left alone"), len(list(directory().iterdir())))


def test_what_cannot_be_removed_is_said_and_tried_again(emulator: Emulator, died: Session, cloud: Cloud) -> None:
    """A removal that is refused keeps no other from it, and stays in the ledger for the next collection."""
    emulator.faults.add(Fault(kind=FaultKind.FORBIDDEN, method="DELETE", path="/images/"))
    fates = {str(one.thing.kind): one for one in reap(cloud, time.time())}
    assert Fate.FAILED is fates["image"].fate
    assert "compute.instances.create" in fates["image"].why
    assert ["images"] == list(everything(emulator))
    emulator.faults.clear()
    list(reap(cloud, time.time()))
    assert {} == everything(emulator)


def test_gc_prints_what_it_does(emulator: Emulator, died: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a line for each thing, and exits with 0."""
    assert 0 == cli.main(["gce", "gc", f"--gce-endpoint={emulator.endpoint}"])
    lines = capsys.readouterr().out.splitlines()
    assert 3 == len(lines)
    assert all(": removed (the ledger of run " in line for line in lines)
    assert {} == everything(emulator)
