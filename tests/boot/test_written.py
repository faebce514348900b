"""Consoles that were written from their programs' sources, where nothing could be booted: they are judged right.

`fixtures/consoles/written/expected.json` has what is to be said of each.
"""

import json
import re
from collections.abc import Callable

import pytest

from vmtests.boot import skim
from vmtests.boot.follow import Follower
from vmtests.boot.replay import Replay, explain
from vmtests.boot.verdict import Cause
from vmtests.resources import fixture

WRITTEN = fixture("consoles/written")
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())
GOOD = WRITTEN / "openrc-ok.log"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_written_console_gets_its_verdict(name: str) -> None:
    """Verdict, stage, cause and owner are right, whoever speaks."""
    told = explain([(WRITTEN / f"{name}.log").read_bytes()]).to_json()
    assert {key: told[key] for key in EXPECTED[name]} == EXPECTED[name]


COLLECTED = {
    *("gha", "journal", "quoted-indented", "runtime-logfmt", "dracut-initqueue-headless", "cri-no-root"),
    *("json-lines-ready", "cloud-logging-nested", "initrd-target-headless", "vmm-in-journal"),
    *("ostree-signature", "runtime-logfmt-middle", "talosctl-dmesg", "clock-bad-crc"),
    "journal-ends-of-startup",
}
"""Those in which each line has something in front that no machine prints."""


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - COLLECTED))
def test_a_written_console_gets_its_verdict_live(make: Callable[..., Follower], name: str) -> None:
    """The follower says of a machine what `vmtests explain` says of its log; of a silence what it waited for."""
    follower = make()
    follower.feed((WRITTEN / f"{name}.log").read_bytes())
    verdict = follower.wait_verdict()
    if EXPECTED[name]["verdict"] == "unknown":
        waited = Cause.DEVICE_TIMEOUT if "the boot waits for device" in verdict.sentence else Cause.NO_PROGRESS
        assert verdict.cause in {EXPECTED[name]["cause"], waited}
        assert not verdict.ready
    else:
        assert {key: verdict.to_json()[key] for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, bytes(range(256)) * 40, b"x" * 3_000_000, b"\x1b[" * 5000])
def test_what_is_no_console_is_unknown(data: bytes) -> None:
    """Nothing, noise, and one endless line: nobody can tell."""
    assert explain([data]).verdict.word == "unknown"


def test_the_last_of_two_boots_counts_and_the_first_is_named() -> None:
    """A log that is continued over a restart is about its last boot."""
    failed, good = (WRITTEN / "xfs-rhel.log").read_bytes(), GOOD.read_bytes()
    told = explain([failed, b"\n", good])
    assert (told.verdict.word, told.boots) == ("ready", 2)
    assert [before.word for before in told.earlier] == ["failed"]


@pytest.mark.parametrize(
    "prefix",
    [
        "machine # ",
        "vm-test-run-boot> ",
        "vm-test-run-boot> machine # ",
        "2024-01-02T03:04:05.123Z ",
        "2024-01-02T03:04:05+0000 host console[9]: ",
        "serial | ",
        "[2024-01-02 03:04:05] ",
        "    qemu: ",
        "2024-01-02T03:04:05.123456789Z stdout F ",
        "build\tRun the machine\t2024-01-02T03:04:05.1234567Z ",
        "<13>1 2024-01-02T03:04:05.1Z host qemu 99 - - ",
        "1704164645.123456 host qemu[99]: ",
        "2024-01-02 03:04:05.123 INFO  console - ",
        "  17  ",
        "17:",
    ],
)
def test_the_prefix_of_a_collector_is_taken_off(prefix: str) -> None:
    """Test drivers, CI and containers put something in front of each line."""
    for name, verdict in ((GOOD.stem, "ready"), ("xfs-rhel", "failed")):
        lines = (WRITTEN / f"{name}.log").read_text().splitlines()
        told = explain(["".join(f"{prefix}{line}\n" for line in lines).encode()]).to_json()
        assert (told["verdict"], told["cause"]) == (verdict, EXPECTED[name]["cause"])


def test_a_journal_has_the_kernels_lines_however_few_they_are() -> None:
    """Where most lines are the manager's, `kernel: ` is still who speaks, and no quotation."""
    said = ["kernel: BTRFS error (device sda4): open_ctree failed", "systemd[1]: Failed to mount /sysroot."]
    lines = ["systemd[1]: Mounting /sysroot...", *said, "systemd[1]: Dependency failed for Initrd Root File System."]
    told = explain(["".join(f"Jul 28 02:50:18 host {line}\n" for line in lines).encode()])
    assert told.verdict.cause is Cause.FILESYSTEM_DAMAGED


def test_firmware_that_says_who_it_is_again_and_again_is_a_loop() -> None:
    """A boot sector that restarts the machine says nothing itself."""
    told = explain([b"SeaBIOS (version 1.8.2-google)\nBooting from Hard Disk 0...\n" * 3])
    assert (told.verdict.word, told.verdict.cause, told.boots) == ("failed", Cause.BOOT_LOOP, 3)


def test_a_root_that_came_is_waited_for_no_more() -> None:
    """The kernel that waited for its root, and mounted it, has not failed by that."""
    said = b"[    1.115797] Waiting for root device PARTUUID=d0a91e1d-02...\n[    1.363091] VFS: Mounted root ("
    assert explain([said, b"ext4 filesystem) readonly on device 179:2.\n"]).verdict.cause is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: json.dumps({"log": f"{line}\n", "stream": "stdout"}),
        lambda line: json.dumps({"labels": {"vm": "a"}, "line": line}),
        lambda line: json.dumps({"insertId": "x", "jsonPayload": {"message": line}}),
        lambda line: json.dumps({"MESSAGE": [*line.encode()], "SYSLOG_IDENTIFIER": "qemu"}),
        lambda line: f"    {json.dumps(line)},",
    ],
    ids=["docker", "loki", "cloud-logging", "journal-bytes", "list"],
)
def test_a_line_in_json_is_taken_out(wrap: Callable[[str], str]) -> None:
    """Collectors' JSON has the line under a key of theirs."""
    lines = (WRITTEN / "xfs-rhel.log").read_text().splitlines()
    told = explain(["".join(f"{wrap(line)}\n" for line in lines).encode()]).to_json()
    assert {key: told[key] for key in EXPECTED["xfs-rhel"]} == EXPECTED["xfs-rhel"]


def test_a_long_recording_keeps_what_matters_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a flood is passed over, but not what ends a boot in it."""
    monkeypatch.setattr(skim, "ENDS", 1 << 16)
    flood = b"".join(b"[%12.6f] audit: type=1400 x=%d\n" % (i / 100, i) for i in range(2000))
    begin = b"[    0.000000] Linux version 6.1\n[    1.000000] Run /sbin/init as init process\n"
    end = b"[  700.000000] Kernel panic - not syncing: Fatal exception in interrupt\n"
    chunks = [begin, *[flood] * 20, end, *[flood] * 20]
    assert len(b"".join(skim.Skim(chunks))) < 6 * len(flood)
    assert explain(chunks).verdict.cause == "kernel-panic"


def test_of_very_many_boots_the_begins_are_counted() -> None:
    """A machine that goes round for ever has its boots counted, and its last one judged."""
    boot = b"[    0.000000] Linux version 6.1\n[    1.000000] Run /init as init process\n" + b"x y z " * 3000 + b"\n"
    end = b"[    2.000000] Kernel panic - not syncing: Fatal exception in interrupt\n"
    told = explain([(boot + end) * 50] * 10)
    assert (told.boots, told.verdict.cause) == (500, "kernel-panic")


def test_a_line_that_the_caller_names_is_ready() -> None:
    """A system without a login has a line of its own."""
    replay = Replay(ready=re.compile("appliance is up"))
    replay.feed(b"[    0.000000] Linux version 6.1\n[    1.0] Run /sbin/init as init process\nappliance is up\n")
    assert replay.finish().verdict.ready
