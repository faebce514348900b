"""`vmtests explain` on what people have: files, packed ones, pipes, results, logs of collectors, logs that grow."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtests import cli
from vmtests.cli import explain
from vmtests.resources import fixture

GOOD = (fixture("consoles/written") / "openrc-ok.log").read_bytes()
FAILED = (fixture("consoles/written") / "xfs-rhel.log").read_bytes()
TEXT = GOOD.decode()


def _told(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    cli.main(["explain", "--json", *argv])
    told = json.loads(capsys.readouterr().out)
    assert isinstance(told, dict)
    return told


def _prefixed(prefix: Callable[[int], str]) -> bytes:
    return "".join(f"{prefix(number)}{line}\n" for number, line in enumerate(TEXT.splitlines())).encode()


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(GOOD),
        gzip.compress(GOOD)[:-4],
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        b"Script started on 2024-01-01 00:00:00+00:00\n" + GOOD + b"\nScript done on 2024-01-01 00:01:00+00:00\n",
        _prefixed(lambda n: f"2024-01-02T03:04:{n % 60:02}.1234567Z "),
        _prefixed(lambda n: f"Jan  2 03:04:{n % 60:02} host console[12]: "),
        "".join(json.dumps({"MESSAGE": line, "PRIORITY": "6"}) + "\n" for line in TEXT.splitlines()).encode(),
        FAILED + b"\n" + GOOD,
    ],
    ids=["gz", "cut gz", "utf-16", "utf-16-be", "utf-16 bare", "script", "ci", "journal", "json", "two boots"],
)
def test_whatever_wrote_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes) -> None:
    """A console's log is judged in whatever form it came."""
    (tmp_path / "log").write_bytes(data)
    assert _told(capsys, str(tmp_path / "log"))["verdict"] == "ready"


def test_a_directory_of_results_has_a_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console of a run is found in its directory."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "console.log").write_bytes(FAILED)
    assert _told(capsys, str(tmp_path))["cause"] == "filesystem-damaged"


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What `gcloud compute instances get-serial-port-output` prints is piped in."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(FAILED), encoding="utf-8"))
    told = _told(capsys)
    assert (told["verdict"], told["boots"]) == ("failed", 1)


@pytest.mark.parametrize(("data", "status"), [(GOOD, 0), (FAILED, 1), (b"", 2), (b"\0\1\2" * 999, 2)])
def test_the_exit_status_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, status: int
) -> None:
    """Ready is 0, failed 1, and what nobody can tell 2."""
    (tmp_path / "log").write_bytes(data)
    assert cli.main(["explain", str(tmp_path / "log")]) == status
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["none.log"], "there is no none.log"),
        (["empty"], "empty has no console.log"),
        (["--ready", "(", "log"], "is no regular expression"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    """A log that is not there, a directory without one, half a pattern."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "log").write_bytes(GOOD)
    assert cli.main(["explain", *argv]) == 2
    assert says in capsys.readouterr().err


class _Growing:
    """Stands for `time` in the command: whoever sleeps finds the log longer, and later the time gone on."""

    def __init__(self, path: Path, pieces: Iterator[bytes]) -> None:
        self._path, self._pieces, self._now = path, pieces, 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        with self._path.open("ab") as file:
            file.write(next(self._pieces, b""))


@pytest.mark.parametrize("size", [40, 700])
@pytest.mark.parametrize(
    ("data", "verdict"),
    [(GOOD, "ready"), (FAILED, "failed"), (_prefixed(lambda n: f"2024-01-02T03:04:{n % 60:02}.123Z "), "ready")],
    ids=["good", "failed", "ci"],
)
def test_a_log_that_grows_is_followed_to_its_verdict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    verdict: str,
    size: int,
) -> None:
    """With --follow the verdict comes when the boot is decided, in whatever pieces the log grows."""
    log = tmp_path / "log"
    log.write_bytes(b"")
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    monkeypatch.setattr(explain, "time", _Growing(log, pieces))
    assert _told(capsys, "--follow", str(log))["verdict"] == verdict
