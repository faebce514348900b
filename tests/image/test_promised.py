"""A disk held to a contract without a store: partitions by label or type, sizes, file systems, copies and verity."""

from pathlib import Path
from typing import Any

import pytest

from vmtests import contract as contracts
from vmtests.host import tools
from vmtests.image.inspect import inspect, is_ours
from vmtests.testing.images import SmallImage, small_image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> SmallImage:
    """A disk with partitions `ESP`, `nix-store` and `root`, which only some of the contracts below hold for."""
    return small_image(tmp_path_factory.mktemp("promised"))


def _said(image: SmallImage, data: dict[str, Any]) -> list[str]:
    found = inspect(image.path, contracts.from_data(data, "here"), tools.find())
    return [check.sentence for check in found.breaches]


@pytest.mark.parametrize(
    "partition",
    [
        {"label": "root"},
        {"label": "r*"},
        {"type": "root-x86-64", "filesystem": "ext4"},
        {"label": "ESP", "type": "esp", "filesystem": "vfat", "size": "1M"},
        {"label": "root", "grow": True},
    ],
)
def test_promise_that_is_kept_is_no_breach(image: SmallImage, partition: dict[str, Any]) -> None:
    """A partition is found by its label, which may have wildcards, or by its type."""
    assert [] == [said for said in _said(image, {"partition": [partition]}) if "contract" in said or "no part" in said]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"partition": [{"label": "data"}]},
            "there is no partition labelled `data`; there is `ESP`, `nix-store`, `root`",
        ),
        ({"partition": [{"label": "root", "filesystem": "xfs"}]}, "has file system ext4; the contract has xfs"),
        ({"partition": [{"label": "root", "type": "home"}]}, "is of type root-x86-64; the contract has home"),
        ({"partition": [{"label": "root", "size": "100G"}]}, "the contract asks for 100 GiB at least"),
        ({"partition": [{"label": "ESP", "size_max": "1M"}]}, "the contract allows 1 MiB"),
        ({"partition": [{"type": "root-x86-64", "copies": 2}]}, "there is 1 partition of type root-x86-64 of the 2"),
        ({"partition": [{"label": "ESP", "grow": True}]}, "is not the last and cannot grow"),
        (
            {"partition": [{"label": "nix-store", "verity": "root"}, {"label": "root"}]},
            "has no hash tree of dm-verity",
        ),
        ({"disk": {"size": "7G"}}, "the contract has 7 GiB"),
        ({"disk": {"sector_size": 4096}}, "the GPT has sectors of 512 bytes; the contract has 4096"),
        ({"boot": {"entry": "/loader/entries/other.conf"}}, "does not go by the entry /loader/entries/other.conf"),
    ],
)
def test_promise_that_is_broken_is_a_sentence(image: SmallImage, data: dict[str, Any], sentence: str) -> None:
    """It says what there is, and what the contract has."""
    assert any(sentence in said for said in _said(image, data)), _said(image, data)


def test_erofs_that_is_root_does_not_make_our_layout(image: SmallImage) -> None:
    """A disk is ours by its store, and not by an erofs that is something else."""
    volumes = list(inspect(image.path, None, tools.find()).volumes)
    assert is_ours(contracts.default(), volumes)
    assert not is_ours(contracts.default(), [volume for volume in volumes if volume.label != "nix-store"])
    assert Path(image.path).exists()
