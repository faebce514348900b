"""A first contract is written from what is there, and holds for it."""

import dataclasses
import json
import tomllib
from pathlib import Path

from tests.suite.conftest import Foreign
from vmtests import contract as contracts
from vmtests.host import tools
from vmtests.image.inspect import inspect
from vmtests.testing.images import small_image
from vmtests.vm.draft import draft


def test_first_contract_holds_for_its_image(tmp_path: Path) -> None:
    """What is written from a disk is a contract that the disk does not break, and that another one does."""
    image = small_image(tmp_path)
    text = draft(inspect(image.path, contracts.ANY, tools.find()))
    written = contracts.from_data(tomllib.loads(text), "here", text)
    labels = [partition.label for partition in contracts.default().partition]
    assert labels == [partition.label for partition in written.partition]
    held = inspect(image.path, written, tools.find())
    assert [] == [check for check in held.breaches if check.part]
    other = contracts.from_data(tomllib.loads(text.replace('"root"', '"data"')), "here")
    broken = inspect(image.path, other, tools.find())
    assert ["there is no partition labelled `data`; there is `ESP`, `nix-store`, `root`"] == [
        check.sentence for check in broken.breaches if check.part
    ]


def test_mount_through_verity_is_of_the_data(tmp_path: Path) -> None:
    """Its device is made of the hash tree, too, which may come first in the table."""
    foreign = Foreign(tmp_path)
    foreign.devices = [
        {
            "name": "usr",
            "kname": "dm-0",
            "number": "254:0",
            "children": [{"name": "sda1", "partlabel": "hash"}, {"name": "sda2", "partlabel": "data"}],
        }
    ]
    foreign.mountinfo = ["30 22 254:0 / /usr ro - erofs /dev/mapper/usr ro"]
    foreign.said |= {"test -d /run/systemd/system": "", "systemctl list-units": "[]", "systemctl show": ""}
    first = {"partition": [{"label": "hash"}, {"label": "data", "verity": "hash"}]}
    text = draft(foreign.image.inspection, contracts.from_data(first, "here"), foreign)
    assert ["data"] == [mount["partition"] for mount in tomllib.loads(text)["mount"]]


def test_names_of_others_are_only_names(tmp_path: Path) -> None:
    """What a file, a partition or a service is called makes no line of its own, nor anything that a terminal heeds."""
    foreign = Foreign(tmp_path)
    foreign.said |= {"test -d /run/systemd/system": "", "systemctl list-units": "[]", "systemctl show": ""}
    name = "a\x1b[2J\x9b2J\u202e\n[[mount]]\x7f\U0001f4be"
    found = foreign.image.inspection
    volumes = (dataclasses.replace(found.volumes[0], label=name), *found.volumes[1:])
    inspection = dataclasses.replace(found, path=tmp_path / f"{name}.raw", volumes=volumes)
    failed = [{"unit": f"{name}.service", "active": "failed", "sub": "failed", "load": "loaded", "description": ""}]
    foreign.said["systemctl list-units"] = json.dumps(failed)
    text = draft(inspection, contracts.ANY, foreign)
    assert text.replace("\n", "").isprintable()
    written = tomllib.loads(text)
    assert name == written["partition"][0]["label"]
    assert [f"{name}.service"] == written["units"]["may_fail"]
    assert "mount" not in written
