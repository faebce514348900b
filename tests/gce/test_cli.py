"""The commands of `vmtests gce`, and the suite's options, say what is wrong in one sentence and make nothing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gce.conftest import everything
from vmtests import cli
from vmtests.emulator import Emulator
from vmtests.gce.cost import at_most, sentence
from vmtests.gce.settings import Settings
from vmtests.sizes import GIB

Run = Callable[..., pytest.RunResult]


@pytest.mark.parametrize("verb", ["upload", "run"])
def test_missing_image_is_a_sentence_and_makes_nothing(
    emulator: Emulator,
    verb: str,
    tmp_path: Path,
    real_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An image that does not exist ends with 2 before anything is asked of Compute Engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMTESTS_CACHE", str(real_cache))
    assert 2 == cli.main(["gce", verb, "none.raw", f"--gce-endpoint={emulator.endpoint}"])
    assert "none.raw does not exist" in capsys.readouterr().err
    assert ({}, False) == (everything(emulator), (tmp_path / "results").exists())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--gce-endpoint=http://example.com", "not on this host"),
        ("--gce-endpoint=ftp://127.0.0.1", "is no endpoint"),
        ("--gce-zone=Mars", "no name of a zone"),
        ("--gce-project=A B", "no name of a project"),
        ("--gce-bucket=/", "no name of a bucket"),
    ],
)
def test_impossible_settings_are_refused(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be no project, zone, bucket or endpoint is said before anything is asked; nobody elsewhere is asked."""
    assert 2 == cli.main(["gce", "gc", "--gce-endpoint=http://127.0.0.1:1", option])
    assert said in capsys.readouterr().err


def test_file_of_somebody_else_is_not_called_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was there before is refused, and not offered to be sent to anybody."""
    (there := tmp_path / "there").write_text("mine")
    assert 2 == cli.main(["gce", "record", "reference", f"--to={there}", "--gce-endpoint=http://127.0.0.1:1"])
    said = capsys.readouterr().err
    assert "is there already" in said
    assert "what was asked" not in said
    assert "mine" == there.read_text()


def test_zone_for_machine_learning_has_a_name_of_its_own() -> None:
    """ "AI zones" of Google's documentation: the letter of the zone that it belongs to comes last."""
    settings = Settings.find(endpoint="http://127.0.0.1:1", zones=["us-central1-ai1a"])
    assert ("us-central1-ai1a",) == settings.zones


def test_gc_without_anything_prints_nothing(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was left, a collection says nothing and ends with 0."""
    assert 0 == cli.main(["gce", "gc", "--dry-run", f"--gce-endpoint={emulator.endpoint}"])
    assert "" == capsys.readouterr().out


def test_cost_is_an_upper_bound() -> None:
    """The price of machine, disk, address and storage together, for the whole time, is in the sentence."""
    dollars = at_most("e2-small", disk=10 * GIB, disk_type="pd-balanced", archive=GIB, seconds=3600.0)
    assert dollars is not None
    assert 0.017 < dollars < 0.05
    said = sentence("e2-small", disk=10 * GIB, disk_type="pd-balanced", archive=GIB, seconds=3600.0)
    assert "less than $0.04" in said
    # A large disk is what most is paid for, by its type.
    large = at_most("e2-small", disk=1000 * GIB, disk_type="pd-ssd", archive=GIB, seconds=3600.0)
    assert large is not None
    assert large > 0.017 + 0.004 + 1000 * 0.17 / 730
    for machine, disk_type in (("x9-huge", "pd-balanced"), ("e2-small", "pd-extreme")):
        assert "not known here" in sentence(machine, disk=GIB, disk_type=disk_type, archive=GIB, seconds=60.0)


def test_tests_for_another_target_are_told(pytester: pytest.Pytester, run: Run) -> None:
    """A test that makes sense on one target only is left out on another, and named at the end."""
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.fixture(scope='session')\ndef _vmtests_machines(): pass\n"
        "pytestmark = pytest.mark.usefixtures('_vmtests_machines')\n"
        "@pytest.mark.vm(target='qemu')\ndef test_q(): pass\n"
        "@pytest.mark.vm(target='gce')\ndef test_g(): pass\n"
        "def test_both(): pass\n"
    )
    for target, other, left_out in (("qemu", "gce", "test_g"), ("gce", "qemu", "test_q")):
        result = run(f"--vm-target={target}", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=2, deselected=1)
        assert re.search(rf"^only for --vm-target={other}: .*::{left_out}$", result.stdout.str(), re.MULTILINE)
