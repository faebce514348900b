"""Firmware by descriptor."""

import json
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import firmware

SHARE, ETC = "usr/share/qemu/firmware", "etc/qemu/firmware"


def describe(
    root: Path,
    name: str,
    *,
    directory: str = SHARE,
    features: tuple[str, ...] = (),
    code: str = "/usr/share/OVMF/CODE.fd",
    make: bool = True,
    **changes: object,
) -> Path:
    """Write a descriptor and the files that it names, and return its path."""
    variables = "/usr/share/OVMF/VARS.fd"
    mapping = {
        "device": "flash",
        "executable": {"filename": code, "format": "raw"},
        "nvram-template": {"filename": variables, "format": "raw"},
    }
    data = {
        "description": name,
        "interface-types": ["uefi"],
        "mapping": mapping,
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": list(features),
        "tags": [],
        **changes,
    }
    path = root / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    for file in (code, variables) if make else ():
        (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / file[1:]).touch()
    return path


def test_first_by_name(tmp_path: Path) -> None:
    """Of several descriptors the first in the order of file names is taken."""
    describe(tmp_path, "60-b.json")
    first = describe(tmp_path, "50-a.json")
    assert first == firmware.find(tmp_path).descriptor


def test_both_paths(tmp_path: Path) -> None:
    """A file has the path that QEMU sees in its root, and the one that we see."""
    describe(tmp_path, "60.json")
    code = firmware.find(tmp_path).code
    assert Path("/usr/share/OVMF/CODE.fd") == code.inside
    assert tmp_path / "usr/share/OVMF/CODE.fd" == code.outside


def test_no_secure_boot_by_default(tmp_path: Path) -> None:
    """Firmware with secure boot is taken only when it is asked for, and then with enrolled keys."""
    enrolled = describe(tmp_path, "40.json", features=("secure-boot", "enrolled-keys", "requires-smm"))
    describe(tmp_path, "50.json", features=("secure-boot", "requires-smm"))
    plain = describe(tmp_path, "60.json")
    assert plain == firmware.find(tmp_path).descriptor
    found = firmware.find(tmp_path, secure_boot=True)
    assert (enrolled, True) == (found.descriptor, found.needs_smm)


def test_empty_root(tmp_path: Path) -> None:
    """Without any descriptor the error says what to install."""
    with pytest.raises(HostError, match="install OVMF"):
        firmware.find(tmp_path)


def test_administrator_overrides(tmp_path: Path) -> None:
    """A descriptor in /etc takes the place of the one with its name in /usr/share, and only of that."""
    describe(tmp_path, "60.json")
    own = describe(tmp_path, "60.json", directory=ETC)
    other = describe(tmp_path, "50.json")
    assert [other, own] == [found.descriptor for found in firmware.survey(tmp_path).firmware]


def test_empty_file_masks(tmp_path: Path) -> None:
    """An empty file in /etc hides a descriptor."""
    describe(tmp_path, "60.json")
    describe(tmp_path, "60.json", directory=ETC).write_text("")
    assert firmware.Findings(firmware=(), notes=()) == firmware.survey(tmp_path)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"{", "60.json: Input data was truncated"),
        (b"[]", "60.json: Expected `object`, got `array`"),
        (b"\xff\xfe", "60.json: "),
        (b'{"description": 1}', "60.json: Expected `str`, got `int`"),
    ],
)
def test_broken_descriptor(tmp_path: Path, content: bytes, note: str) -> None:
    """A broken descriptor becomes a note, and the next one is taken."""
    describe(tmp_path, "60.json").write_bytes(content)
    good = describe(tmp_path, "70.json")
    findings = firmware.survey(tmp_path)
    assert [good] == [found.descriptor for found in findings.firmware]
    assert findings.notes[0].startswith(note)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"interface-types": ["bios"]}, "not UEFI"),
        ({"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]}, "not for q35 on x86_64"),
        ({"targets": [{"architecture": "x86_64", "machines": ["microvm"]}]}, "not for q35 on x86_64"),
        ({"mapping": {"device": "memory", "filename": "/x"}}, "not mapped as flash"),
        (
            {
                "mapping": {
                    "device": "flash",
                    "mode": "stateless",
                    "executable": {"filename": "/x", "format": "raw"},
                }
            },
            "flash mode stateless keeps no variables of its own",
        ),
    ],
)
def test_not_for_us(tmp_path: Path, changes: dict[str, object], note: str) -> None:
    """Firmware that our machine cannot use becomes a note that says why."""
    describe(tmp_path, "60.json", **changes)  # type: ignore[arg-type]
    assert firmware.Findings(firmware=(), notes=(f"60.json: {note}",)) == firmware.survey(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    """A descriptor of files that are not there is not used."""
    describe(tmp_path, "60.json", make=False)
    assert firmware.survey(tmp_path).notes == ("60.json: /usr/share/OVMF/CODE.fd does not exist",)


@pytest.mark.parametrize("target", ["CODE.fd", "/usr/share/OVMF/CODE.fd", "../../../../../usr/share/OVMF/CODE.fd"])
def test_links_stay_in_the_root(tmp_path: Path, target: str) -> None:
    """A symbolic link in a tools tree leads to a file of the tree, even when it is absolute."""
    describe(tmp_path, "60.json")
    (tmp_path / "usr/share/OVMF/LINK.fd").symlink_to(target)
    describe(tmp_path, "50.json", code="/usr/share/OVMF/LINK.fd", make=False)
    found = firmware.find(tmp_path)
    assert ("50.json", tmp_path / "usr/share/OVMF/CODE.fd") == (found.description, found.code.outside)


def test_link_to_itself(tmp_path: Path) -> None:
    """A symbolic link that leads nowhere is a missing file."""
    describe(tmp_path, "60.json", code="/loop", make=False)
    (tmp_path / "loop").symlink_to("loop")
    assert firmware.survey(tmp_path).notes == ("60.json: /loop does not exist",)
