"""A boot unit by unit, from systemd's debug lines and from its status lines."""

import pytest

from vmtests.boot.course import Course
from vmtests.boot.scanner import Scanner
from vmtests.boot.stages import Stage, normalise
from vmtests.boot.units import UNITS_LIMIT, Unit, Units
from vmtests.resources import fixture

DEBUG = [
    (1.0, "sysroot.mount: Installed new job sysroot.mount/start as 12"),
    (1.1, "sysroot.mount: starting held back, waiting for: systemd-fsck-root.service"),
    (1.2, "systemd-fsck-root.service: Installed new job systemd-fsck-root.service/start as 28"),
    (2.0, "systemd-fsck-root.service: Changed dead -> start"),
    (2.5, "systemd-fsck-root.service: Changed start -> exited"),
    (2.6, "systemd-fsck-root.service: Job 28 systemd-fsck-root.service/start finished, result=done"),
    (2.7, "sysroot.mount: Changed dead -> mounting"),
    (3.0, "sysroot.mount: Changed mounting -> failed"),
    (3.1, "sysroot.mount: Job 12 sysroot.mount/start finished, result=failed"),
]


def _followed(lines: list[tuple[float, str]], stage: Stage = Stage.INITRD) -> dict[str, Unit]:
    units = Units()
    for t, text in lines:
        units.line(text, t, stage)
    return {unit.name: unit for unit in units.asked()}


def _recorded(name: str) -> Units:
    """Return the units of a recorded console; a line's number stands for its second."""
    units, stage, scanner, course = Units(), Stage.FIRMWARE, Scanner(), Course()
    data = fixture(f"consoles/{name}.log").read_bytes()
    for number, scanned in enumerate(scanner.feed(data)):
        normal = normalise(scanned.text)
        stage = course.take(stage, normal).stage or stage
        units.line(normal.text, float(number), stage)
    return units


def test_job_is_followed_from_its_request_to_its_end() -> None:
    """When a unit was asked for, what it waited for, when it ran and how it ended are told apart."""
    mount = _followed(DEBUG)["sysroot.mount"]
    assert (1.0, 2.7, 3.0, "failed") == (mount.queued, mount.began, mount.ended, mount.result)
    assert "systemd-fsck-root.service" == mount.waits_for
    assert pytest.approx(1.7) == mount.waited
    assert pytest.approx(0.3) == mount.seconds
    assert mount.failed


def test_unit_that_never_ended_has_no_result() -> None:
    """What still waits when the console ends is seen as such, with what it waits for."""
    mount = _followed(DEBUG[:2])["sysroot.mount"]
    assert ("", None, False) == (mount.result, mount.seconds, mount.failed)
    assert "systemd-fsck-root.service" == mount.waits_for


def test_units_are_in_the_order_in_which_they_began() -> None:
    """The table is a story: what began first comes first, what never began last."""
    lines = [*DEBUG, (3.2, "late.service: Installed new job late.service/start as 99")]
    assert ["systemd-fsck-root.service", "sysroot.mount", "late.service"] == list(_followed(lines))


def test_status_lines_tell_where_nothing_else_does() -> None:
    """Without debug lines, Starting and Finished give a unit's time, in either spelling of its name."""
    units = _followed(
        [
            (1.0, "Mounting sysroot.mount - /sysroot..."),
            (2.0, "[OK] Mounted sysroot.mount - /sysroot."),
            (3.0, "Starting NixOS Activation..."),
            (4.5, "[FAILED] Failed to start NixOS Activation."),
        ]
    )
    assert (1.0, "done") == (units["sysroot.mount"].seconds, units["sysroot.mount"].result)
    assert (1.5, "failed") == (units["NixOS Activation"].seconds, units["NixOS Activation"].result)


def test_units_of_the_initrd_and_of_the_system_are_two() -> None:
    """Both managers have a systemd-journald.service."""
    units = Units()
    for stage in (Stage.INITRD, Stage.USERSPACE):
        units.line("systemd-journald.service: Changed dead -> start", 1.0, stage)
    assert [Stage.INITRD, Stage.USERSPACE] == [unit.stage for unit in units.asked()]


def test_hostile_names_do_not_fill_memory() -> None:
    """A guest that makes up units is followed up to a limit."""
    units = Units()
    for number in range(2 * UNITS_LIMIT):
        units.line(f"u{number}.service: Changed dead -> start", 1.0, Stage.INITRD)
    assert UNITS_LIMIT == len(units.asked())


def test_recorded_debug_boot_has_stage_1_in_order() -> None:
    """In a real boot with `debug` the store is mounted after its lower layer and the upper directory were made."""
    stage1 = {unit.name: unit for unit in _recorded("reference-debug").asked() if unit.stage.before(Stage.USERSPACE)}
    store = stage1["sysroot-nix-store.mount"]
    assert store.began is not None
    for name in (r"sysroot-nix-.ro\x2dstore.mount", "rw-sysroot-nix-store.service", "sysroot.mount"):
        ended = stage1[name].ended
        assert ended is not None
        assert ended < store.began
        assert "done" == stage1[name].result
    assert [] == [name for name, unit in stage1.items() if unit.failed]
