"""Machines that are kept across runs: only whole, sound and own entries are used."""

import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vmtests import contract as contracts
from vmtests.boot.console import Line
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Evidence, Verdict
from vmtests.errors import InputError
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware, FirmwareFile
from vmtests.host.tools import Tool, Toolbox
from vmtests.machine.hardware import Disk, Hardware
from vmtests.machine.template import Template, copy_sparse
from vmtests.qemu import snapshots
from vmtests.qemu.snapshots import LOGS, Lock, Record, Snapshot
from vmtests.sizes import MIB

PAST = Past.of(
    Verdict(
        ready=True,
        stage=Stage.READY,
        cause=None,
        sentence="ready",
        evidence=(Evidence(t=9.5, source="console", text="token running"),),
        hint="",
        owner=None,
        evidence_to_verdict_s=0.0,
        seconds={Stage.FIRMWARE: 9.5},
    ),
    Timeline(started=datetime(2026, 1, 1, tzinfo=UTC), starts={Stage.FIRMWARE: 0.0, Stage.READY: 9.5}),
    (Line(t=1.0, text="hello", stage=Stage.KERNEL),),
)


@pytest.fixture
def kept(tmp_path: Path) -> Snapshot:
    """A whole entry of a machine with 128 MiB."""
    return make(tmp_path / "snapshots" / "one", tmp_path / "disk.raw")


def make(directory: Path, image: Path) -> Snapshot:
    """Make an entry."""
    directory.mkdir(parents=True)
    image.touch()
    template = Template(directory)
    template.state.write_bytes(b"devices")
    template.ram.touch()
    os.truncate(template.ram, 128 * MIB)
    for path in (template.disk, template.overlay, template.variables):
        path.touch()
    for log in LOGS:
        (directory / log).write_text(f"{log}\n")
    snapshot = Snapshot(
        template=template,
        record=Record(
            version=snapshots.VERSION,
            place=str(directory),
            image=str(image),
            hardware=Hardware(memory_mib=128, credentials={"a": b"\0\xff"}),
            token="t",
            public_key="ssh-ed25519 AAAA",
            host_keys=("ssh-ed25519 BBBB",),
            prepared="",
            past=PAST,
            state=snapshots.state_digest(template),
            changed=snapshots.last_changed(template),
        ),
    )
    snapshots.save(snapshot)
    return snapshot


def test_what_is_kept_is_found_as_it_was(kept: Snapshot) -> None:
    """A record comes back equal, its boot, credentials and hardware included."""
    assert snapshots.load(kept.template.directory) == kept


def test_entry_without_record_is_none(kept: Snapshot) -> None:
    """An entry whose making was interrupted is not taken for whole."""
    (kept.template.directory / "record.json").unlink()
    assert snapshots.load(kept.template.directory) is None


def _change_state(kept: Snapshot) -> None:
    kept.template.state.write_bytes(b"changed")


def _cut_ram(kept: Snapshot) -> None:
    os.truncate(kept.template.ram, MIB)


def _lose_ram(kept: Snapshot) -> None:
    kept.template.ram.unlink()


def _lose_disk(kept: Snapshot) -> None:
    kept.template.disk.unlink()


def _lose_log(kept: Snapshot) -> None:
    (kept.template.directory / "console.jsonl").unlink()


def _lose_image(kept: Snapshot) -> None:
    Path(kept.record.image).unlink()


def _garble(kept: Snapshot) -> None:
    (kept.template.directory / "record.json").write_bytes(b"{")


def _foreign(kept: Snapshot) -> None:
    snapshots.save(dataclasses.replace(kept, record=dataclasses.replace(kept.record, place="/elsewhere")))


@pytest.mark.parametrize(
    "spoil", [_change_state, _cut_ram, _lose_ram, _lose_disk, _lose_log, _lose_image, _garble, _foreign]
)
def test_unsound_entry_is_dropped_with_one_line(
    spoil: object, kept: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corrupted or foreign entry is not used, and who may remove it does, with one line."""
    assert callable(spoil)
    spoil(kept)
    assert snapshots.load(kept.template.directory) is None
    assert kept.template.directory.exists()
    assert snapshots.load(kept.template.directory, clear=True) is None
    assert not kept.template.directory.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("a kept machine is not sound")


def test_image_that_was_written_over_is_another(tmp_path: Path) -> None:
    """An image of the same size, in the same file, with the time of the last one, is booted again."""
    image = tmp_path / "disk.raw"
    qemu = Tool(name="qemu-system-x86_64", version="10.0", from_host=True, why="test")
    tcg = Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)

    def place() -> Path:
        return snapshots.directory(
            tmp_path, image, contracts.default(), Hardware(), Toolbox({qemu.name: qemu}, None), tcg
        )

    def write(content: bytes) -> int:
        image.write_bytes(content)
        os.utime(image, (1, 1))
        return image.stat().st_ctime_ns

    written = write(b"one")
    first = place()
    assert place() == first
    while write(b"two") == written:
        pass  # the kernel's clock of files ticks every few milliseconds
    assert place() != first


def test_image_whose_backing_file_was_written_over_is_another(tmp_path: Path, toolbox: Toolbox) -> None:
    """A machine is not gone on from over other blocks than it knows, wherever in the chain they are."""
    base, image = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    base.write_bytes(bytes(MIB))
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image)
    tcg = Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)
    disk = Hardware(disks=(Disk(image=image),))
    (alone := tmp_path / "alone.raw").write_bytes(bytes(MIB))

    def places() -> list[Path]:
        ways = ((image, Hardware()), (alone, disk))
        return [snapshots.directory(tmp_path, path, contracts.default(), given, toolbox, tcg) for path, given in ways]

    before = places()
    assert places() == before
    with base.open("r+b") as file:
        file.write(b"other")
    assert not set(before) & set(places())


@pytest.mark.parametrize(
    "name",
    [
        "usr/bin/qemu-system-x86_64",
        "usr/share/seabios/bios-256k.bin",
        "usr/share/OVMF/CODE.fd",
        "usr/share/OVMF/VARS.fd",
    ],
)
def test_machine_of_another_build_is_another(tmp_path: Path, name: str) -> None:
    """A QEMU or a firmware of the same version, which a distribution has built anew, boots the image again."""
    tree, image = tmp_path / "tree", tmp_path / "disk.raw"
    image.write_bytes(bytes(MIB))
    qemu = Tool(name="qemu-system-x86_64", version="10.0", from_host=False, why="test")
    tcg = Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)
    code, variables = (
        FirmwareFile(inside=Path("/", file), outside=tree / file, format="raw")
        for file in ("usr/share/OVMF/CODE.fd", "usr/share/OVMF/VARS.fd")
    )
    ovmf = Firmware(
        code=code, vars_template=variables, descriptor=tree / "60.json", description="OVMF", features=frozenset()
    )
    for file in ("usr/bin/qemu-system-x86_64", "usr/share/seabios/bios-256k.bin", code.outside, variables.outside):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_bytes(b"one")

    def place() -> Path:
        box = Toolbox({qemu.name: qemu}, tree)
        return snapshots.directory(tmp_path, image, contracts.ANY, Hardware(), box, tcg, firmware=ovmf)

    first = place()
    assert place() == first
    (tree / name).write_bytes(b"two")
    assert place() != first


def test_path_that_is_not_utf_8_is_a_sentence(tmp_path: Path, toolbox: Toolbox) -> None:
    """What is kept is described in JSON."""
    image = tmp_path / os.fsdecode(b"d\xe9.raw")
    image.write_bytes(bytes(MIB))
    tcg = Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)
    with pytest.raises(InputError, match="not in UTF-8"):
        snapshots.directory(tmp_path, image, contracts.default(), Hardware(), toolbox, tcg)


def test_what_is_in_an_image_counts_where_all_files_have_one_time(tmp_path: Path) -> None:
    """On a file system that is read-only an image may have path, size, inode and times of the last one."""
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(8 * MIB))
    first = snapshots._sample(image, 8 * MIB)
    for place in (1 << 10, 4 * MIB, 8 * MIB - 512):
        with image.open("r+b") as file:
            file.seek(place)
            file.write(b"other")
        second = snapshots._sample(image, 8 * MIB)
        assert second != first
        first = second


def test_logs_of_the_boot_come_back_whole(kept: Snapshot, tmp_path: Path) -> None:
    """A machine that goes on has every byte of both serial ports and every line, however long the boot was."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for log in LOGS:
        (first / log).write_text(f"{log}: {'x' * 100_000}\n")
    (first / "console.log").write_text("a few bytes behind")
    snapshots.take_logs(first, kept.template)
    assert kept.give_logs(second).record.past.logged
    given = {log: (second / log).read_text() for log in LOGS}
    assert given == {log: (first / source).read_text() for log, source in LOGS.items()}
    assert given["console.log"] == given["ttyS0.log"]


def test_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit those used longest ago are removed, half-made ones always, and used ones never."""
    entries = {}
    for age, name in enumerate(("newest", "locked", "older", "oldest")):
        snapshot = make(tmp_path / "snapshots" / name, tmp_path / "disk.raw")
        stamp = 1_000_000 - age
        os.utime(snapshot.template.directory / "record.json", (stamp, stamp))
        entries[name] = snapshot.template.directory
    (tmp_path / "snapshots" / "half").mkdir()
    monkeypatch.setattr(snapshots, "LIMIT", 0)
    with Lock(entries["locked"]):
        snapshots.prune(entries["newest"])
    left = sorted(path.name for path in (tmp_path / "snapshots").iterdir() if path.is_dir())
    assert left == ["locked", "newest"]


def test_holes_stay_holes(tmp_path: Path) -> None:
    """Memory that the guest never touched takes no room, and what it wrote is copied exactly."""
    source = tmp_path / "ram"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
        os.pwrite(file.fileno(), b"x" * 5000, 3 * MIB + 1)
        os.pwrite(file.fileno(), b"y", 64 * MIB - 1)
    with source.open("rb") as file:
        copy_sparse(file.fileno(), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("name", ["ram", "disk.qcow2", "overlay.qcow2", "variables"])
def test_file_that_was_changed_since_is_seen(kept: Snapshot, name: str) -> None:
    """A byte that was written into any file of an entry makes it unsound, though its size and times are the same."""
    path = kept.template.directory / name
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x" if before.st_size else b"")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert snapshots.load(kept.template.directory) is None
