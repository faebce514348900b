"""A guest is held to what its contract promises of the running system."""

import json
from typing import Any

import pytest

from vmtests import contract as contracts
from vmtests.errors import GuestError
from vmtests.guest import promises
from vmtests.guest.result import Result

MOUNTS = """\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
30 22 254:0 / /usr ro,relatime shared:2 - erofs /dev/mapper/usr ro
31 22 0:40 / /efi rw,relatime shared:3 - autofs systemd-1 rw
"""
AUTOMOUNTED = "32 31 8:1 / /efi rw,relatime shared:4 - vfat /dev/sda1 rw\n"
DEVICES: dict[str, Any] = {
    "/dev/block/8:2": {"name": "sda2", "partlabel": "root", "parttype": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
    "/dev/block/254:0": {
        "name": "usr",
        "kname": "dm-0",
        "children": [
            {"name": "sda3", "partlabel": "usr_1.2", "parttype": "8484680c-9521-48c6-9c11-b0720656f69e"},
            {"name": "sda4", "partlabel": "hash_1.2", "parttype": "77ff5f63-e7b6-4633-acf4-1565b864c0e6"},
        ],
    },
}


class _Guest:
    """Answers as a guest would; `units` are state by name, `verity` the devices that dm-verity has made."""

    def __init__(self, units: dict[str, str] | None = None, verity: tuple[str, ...] = ()) -> None:
        self._units = units or {}
        self._verity = verity
        self._looked_at = False

    def run(
        self, command: str, /, timeout: float = 60.0, *, stdin: bytes | None = None, limit: int = 1 << 20
    ) -> Result:
        """Answer a question."""
        out = ""
        if "list-units" in command:
            shown = [
                {"unit": name, "load": "loaded", "active": state, "sub": "", "description": ""}
                for name, state in self._units.items()
            ]
            out = json.dumps(shown)
        elif "systemctl show" in command:
            state = next((state for name, state in self._units.items() if command.endswith(f" {name}")), None)
            load = "not-found" if state is None else "loaded"
            result = "exit-code" if state == "failed" else "success"
            out = f"LoadState={load}\nActiveState={state or 'inactive'}\nResult={result}\n"
        elif command.startswith("for place in ") and " /efi;" in command:
            self._looked_at = True
        elif "mountinfo" in command:
            out = MOUNTS + (AUTOMOUNTED if self._looked_at else "")
        elif "lsblk" in command:
            shown = [value for name, value in DEVICES.items() if command.endswith(f" {name}")]
            out = json.dumps({"blockdevices": shown or list(DEVICES.values())})
        elif "dm/uuid" in command:
            out = "".join(f"/sys/block/{name}/dm/uuid:CRYPT-VERITY-0123-usr\n" for name in self._verity)
        return Result.of(command, stdout=out.encode(), stderr=b"", exit_code=0, duration=0.0)


def _broken(data: dict[str, Any], guest: _Guest) -> tuple[str, ...]:
    return promises.broken(contracts.from_data(data, "here"), guest)


def test_failed_unit_breaks_what_every_image_promises() -> None:
    """A unit that failed is named, also where nothing else was promised."""
    assert ("a.service has failed",) == _broken({}, _Guest({"a.service": "failed", "b.service": "active"}))


def test_unit_that_may_fail_breaks_nothing() -> None:
    """Its name may have wildcards."""
    assert () == _broken({"units": {"may_fail": ["a*.service"]}}, _Guest({"a.service": "failed"}))


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("active", ()),
        ("inactive", ("a.service is not active (systemd: inactive, success)",)),
        (None, ("a.service is not there (systemd: not-found)",)),
    ],
)
def test_promised_unit_has_to_be_active(state: str | None, sentence: tuple[str, ...]) -> None:
    """One that is not there, or does not run, is told."""
    guest = _Guest({} if state is None else {"a.service": state})
    assert sentence == _broken({"units": {"active": ["a.service"]}}, guest)


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ({"where": "/", "filesystem": "ext4", "options": ["rw"], "partition": "root"}, ()),
        ({"where": "/usr", "filesystem": "erofs", "options": ["ro"], "partition": "usr"}, ()),
        ({"where": "/", "filesystem": "xfs"}, ("/ is ext4, and not xfs",)),
        ({"where": "/usr", "options": ["rw"]}, ("/usr is mounted without rw: relatime,ro",)),
        ({"where": "/srv"}, ("nothing is mounted at /srv",)),
        ({"where": "/efi", "filesystem": "vfat"}, ()),
        (
            {"where": "/", "partition": "fixed"},
            ("/ can be written to, and the partition labelled `ro*` is read-only",),
        ),
        (
            {"where": "/", "partition": "usr"},
            ("/ is not of the partition labelled `usr_*`: it is of sda2 `root`",),
        ),
    ],
)
def test_mount_is_held_to_its_promise(mount: dict[str, Any], sentence: tuple[str, ...]) -> None:
    """File system, options and partition of a mount are compared, through dm-verity too."""
    partitions: list[dict[str, Any]] = [{"type": "root-x86-64", "name": "root"}, {"label": "usr_*", "name": "usr"}]
    partitions.append({"label": "ro*", "name": "fixed", "read_only": True})
    assert sentence == _broken({"partition": partitions, "mount": [mount]}, _Guest())


_NOT_USR = "/usr is not read through dm-verity over the partition labelled `usr_*`"
_NO_ROOT = "/ is not read through dm-verity over the partition labelled `root`"


@pytest.mark.parametrize(
    ("protected", "hashes", "mounted", "verity", "sentence"),
    [
        ("usr", "hash", "/usr", ("dm-0",), ()),
        ("usr", "hash", "/usr", ("dm-1",), (_NOT_USR,)),
        ("usr", "root", "/usr", ("dm-0",), (_NOT_USR,)),
        ("root", "hash", "/", ("dm-0",), (_NO_ROOT,)),
        ("usr", "hash", None, ("dm-0",), ()),
        ("usr", "hash", None, (), ("no device of dm-verity is there for the partition labelled `usr_*`",)),
        ("root", "hash", None, ("dm-0",), ("no device of dm-verity is there for the partition labelled `root`",)),
    ],
)
def test_partition_is_read_through_its_own_verity(
    protected: str, hashes: str, mounted: str | None, verity: tuple[str, ...], sentence: tuple[str, ...]
) -> None:
    """A device of dm-verity counts that is under the mount, and made of the partition and of its own hash tree."""
    partitions = [
        {"label": "root", "name": "root"},
        {"label": "usr_*", "name": "usr"},
        {"label": "hash_*", "name": "hash"},
    ]
    next(one for one in partitions if one["name"] == protected)["verity"] = hashes
    mount = [] if mounted is None else [{"where": mounted, "partition": protected}]
    assert sentence == _broken({"partition": partitions, "mount": mount}, _Guest(verity=verity))


def test_list_of_devices_without_end_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest may say anything."""
    monkeypatch.setitem(DEVICES, "/dev/block/8:2", {"name": "x" * (2 << 20)})
    with pytest.raises(GuestError, match="no list of devices"):
        _broken({"partition": [{"label": "root"}], "mount": [{"where": "/", "partition": "root"}]}, _Guest())
