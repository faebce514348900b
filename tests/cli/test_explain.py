"""`vmtests explain` on what people have: files, packed ones, pipes, results, logs of collectors, logs that grow."""

import gzip
import io
import itertools
import json
import lzma
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmtests import cli
from vmtests.cli import explain
from vmtests.resources import fixture
from vmtests.sizes import MIB
from vmtests.testing import SmallImage, small_image

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
        gzip.compress(FAILED + b"\n") + gzip.compress(GOOD) + bytes(600),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        b"Script started on 2024-01-01 00:00:00+00:00\n" + GOOD + b"\nScript done on 2024-01-01 00:01:00+00:00\n",
        _prefixed(lambda n: f"2024-01-02T03:04:{n % 60:02}.1234567Z "),
        _prefixed(lambda n: f"Jan  2 03:04:{n % 60:02} host console[12]: "),
        "".join(json.dumps({"MESSAGE": line, "PRIORITY": "6"}) + "\n" for line in TEXT.splitlines()).encode(),
        json.dumps({"kind": "compute#serialPortOutput", "contents": TEXT, "next": "9"}).encode(),
        json.dumps({"InstanceId": "i-1", "Timestamp": "2024-01-02\n", "Output": TEXT}, indent=4).encode(),
        FAILED + b"\n" + GOOD,
    ],
    ids=[
        "gz",
        "cut gz",
        "gz appended to",
        "utf-16",
        "utf-16-be",
        "utf-16 bare",
        "script",
        "ci",
        "journal",
        "json",
        "Compute Engine's answer",
        "EC2's answer",
        "two boots",
    ],
)
def test_whatever_wrote_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes) -> None:
    """A console's log is judged in whatever form it came."""
    (tmp_path / "log").write_bytes(data)
    assert _told(capsys, str(tmp_path / "log"))["verdict"] == "ready"


def test_how_much_of_a_long_log_was_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what it holds, not what it takes on the disk where it is packed."""
    monkeypatch.setattr(explain, "time", SimpleNamespace(monotonic=itertools.count(step=3).__next__))
    (tmp_path / "log.gz").write_bytes(gzip.compress(bytes(8 * MIB)))
    cli.main(["explain", str(tmp_path / "log.gz")])
    assert "8 MiB read" in capsys.readouterr().err


def test_a_journal_is_taken_as_journalctl_exports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`journalctl -o export`, as it lies in the results of a boot that failed, is read as its text would be."""
    packed = Path(__file__).parent.parent / "boot/emergency.export.xz"
    (tmp_path / "journal").write_bytes(lzma.decompress(packed.read_bytes()))
    assert _told(capsys, str(tmp_path / "journal"))["cause"] == "mount-failed"


def test_last_boot_of_a_long_journal_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However many entries the boots before it have: a journal of weeks begins with others."""
    packed = Path(__file__).parent.parent / "boot/emergency.export.xz"
    before = b"__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=before\nMESSAGE=x\n\n" * 60_000
    (tmp_path / "journal").write_bytes(before + lzma.decompress(packed.read_bytes()))
    assert _told(capsys, str(tmp_path / "journal"))["cause"] == "mount-failed"


def test_last_boot_behind_the_first_64_mib_of_a_journal_is_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal from a pipe is read to its end, and what is kept of it is small."""
    packed = Path(__file__).parent.parent / "boot/emergency.export.xz"
    block = b"__REALTIME_TIMESTAMP=1\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=before\nMESSAGE\n"
    before = b"".join((block, (70 << 20).to_bytes(8, "little"), bytes(70 << 20), b"\n\n"))
    data = io.BytesIO(before + lzma.decompress(packed.read_bytes()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data, encoding="utf-8"))
    tracemalloc.start()
    try:
        assert _told(capsys)["cause"] == "mount-failed"
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


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
        (["/dev/zero"], "/dev/zero is a device, not a log"),
        (["--follow", "/dev/zero"], "/dev/zero is a device, not a log"),
        (["--ready", "(", "log"], "is no regular expression"),
        (["--ready", "(" * 20_000, "log"], "is no regular expression"),
        (["--ready", "a{99999999999}", "log"], "is no regular expression"),
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


@pytest.fixture
def disk(tmp_path: Path) -> SmallImage:
    """A small disk, to be broken."""
    return small_image(tmp_path)


IN_INITRD = b"Booting initrd of NixOS.\r\n"
GIVEN_UP = b"[  OK  ] Started Emergency Shell.\r\n"
STORE_NOT_MOUNTED = IN_INITRD + b"[FAILED] Failed to mount /sysroot/nix/.ro-store.\r\n" + GIVEN_UP


def _joined(disk: SmallImage, log: bytes, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    path = disk.path.with_name("console.log")
    path.write_bytes(log)
    return _told(capsys, str(path), "--image", str(disk.path))


def test_with_an_image_a_log_is_joined_to_what_is_on_it(disk: SmallImage, capsys: pytest.CaptureFixture[str]) -> None:
    """The log says that the store was not mounted, the disk that there is no erofs: that is the cause."""
    before = _joined(disk, STORE_NOT_MOUNTED, capsys)
    disk.write(disk.start(2) + 1024, bytes(128))
    after = _joined(disk, STORE_NOT_MOUNTED, capsys)
    assert (before["cause"], after["cause"]) == ("mount-failed", "erofs-superblock")
    assert "erofs" in str(after["sentence"])
    assert [item for item in after["evidence"] if item["source"] == "inspection"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("/dev/disk/by-uuid/12345678-0000-4000-8000-000000000000", "the image has no UUID=12345678-"),
        ("/dev/disk/by-partlabel/root", "the image has PARTLABEL=root, it is partition 3"),
    ],
)
def test_of_a_device_that_did_not_come_it_is_told_whether_the_image_has_it(
    disk: SmallImage, capsys: pytest.CaptureFixture[str], asked: str, says: str
) -> None:
    """A name that the disk does not have is wrong; one that it has needs the disk and its driver."""
    log = f"[ TIME ] Timed out waiting for device {asked}.\r\n[DEPEND] Dependency failed for /sysroot.\r\n".encode()
    told = _joined(disk, IN_INITRD + log + GIVEN_UP, capsys)
    assert (told["cause"], told["stage"]) == ("device-timeout", "initrd")
    assert says in str(told["sentence"])


def test_an_image_does_not_make_a_good_boot_bad(disk: SmallImage, capsys: pytest.CaptureFixture[str]) -> None:
    """The log decides: what is wrong with a disk that got ready is no matter to the verdict."""
    disk.write(disk.start(2) + 1024, bytes(128))
    assert _joined(disk, GOOD, capsys)["verdict"] == "ready"
