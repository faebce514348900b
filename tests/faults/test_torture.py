"""The moments of a torture, and the scripts by which a guest says what it has synced."""

import subprocess
from pathlib import Path

import pytest

from vmtests import cli
from vmtests.boot.stages import Stage
from vmtests.faults.torture import _READER, _WRITER, Scene, moments, spans


def test_moments_are_all_over_the_time_and_the_same_again() -> None:
    """Each scene has its part of them, each part of its time has one, and a seed gives the same ones."""
    found = moments(30, 7)
    assert found == moments(30, 7)
    assert found != moments(30, 8)
    for scene in Scene:
        ours = [one.part for one in found if one.scene is scene]
        assert (10, ours) == (len(ours), sorted(ours))
        assert ours[0] < ours[-1] / 5
    assert [1] == [one.number for one in moments(1, 1)]
    assert {Scene.REBOOT} == {one.scene for one in moments(5, 1, [Scene.REBOOT])}


def test_power_is_cut_all_over_a_boot_as_it_is_on_this_host() -> None:
    """A first boot that goes on in the initrd is cut until a little after it would be ready, and a reboot as well."""
    found = spans({Stage.INITRD: 20.0, Stage.READY: 60.0})
    assert 40 < found[Scene.FIRST_BOOT] < 60 < found[Scene.REBOOT] < 90


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, int]:
    """A directory in which a writer was killed, and the rounds of which it had told."""
    console = tmp_path / "console"
    script = _WRITER.format(store=tmp_path, directory="d", console="null")
    script = script.replace("> /dev/null\ndone", f">> {console}\n[ $i -lt 3 ] || exit 0\ndone").replace("sync;", "")
    subprocess.run(["sh", "-c", f"command() {{ return 1; }}; {script}"], check=True, timeout=30)
    return tmp_path, console.read_text().count("vmtests-torture synced")


def _read(store: Path, rounds: int) -> tuple[int, str]:
    script = _READER.format(store=store, directory="d", rounds=rounds)
    done = subprocess.run(
        ["sh", "-c", f"command() {{ return 1; }}; {script}"], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, done.stdout.strip()


def test_what_was_synced_is_found_whole(written: tuple[Path, int]) -> None:
    """A store that has all rounds is well."""
    assert (0, "") == _read(*written)


@pytest.mark.parametrize(("name", "content", "said"), [("data", b"0" * 70000, "2: data"), ("name", b"", "2: name")])
def test_what_is_lost_is_named(written: tuple[Path, int], name: str, content: bytes, said: str) -> None:
    """A file that is not as it was, or empty, is named with its round."""
    store, rounds = written
    (store / "d/2" / name).write_bytes(content)
    assert (1, said) == _read(store, rounds)


def test_store_that_cannot_be_written_to_is_never_told_of(tmp_path: Path) -> None:
    """A writer that cannot begin says nothing: no round of it is taken for one that was synced."""
    script = _WRITER.format(store="/proc/self/none", directory="d", console="stdout")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=30, cwd=tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert "/proc/self/none" in done.stderr


def test_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """No moments, and no machines, are nothing to run."""
    assert 2 == cli.main(["torture", "reference", "--moments", "0"])
    assert "from 1 on" in capsys.readouterr().err
