"""Partition definitions follow from the contract and the seed, and from nothing else."""

import configparser
import os
from pathlib import Path

import pytest

from vmtests.contract import default
from vmtests.errors import InputError
from vmtests.image import repart
from vmtests.image.spec import DEFAULT_SEED


def _read(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False)
    parser.read(path)
    return dict(parser["Partition"])


def test_there_is_a_definition_for_each_partition_in_order(tmp_path: Path) -> None:
    """Repart reads the definitions in the order of their names: it is the contract's."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {})
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["001-esp.conf", "002-store.conf", "003-root.conf"]


def test_esp_has_a_fixed_size_and_root_a_least_size(tmp_path: Path) -> None:
    """The ESP does not grow; the root partition takes what is left."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {})
    esp, root = _read(tmp_path / "d/001-esp.conf"), _read(tmp_path / "d/003-root.conf")
    assert esp["sizeminbytes"] == esp["sizemaxbytes"] == str(128 << 20)
    assert root["sizeminbytes"] == str(512 << 20)
    assert "sizemaxbytes" not in root


def test_store_in_place_is_neither_formatted_nor_filled(tmp_path: Path) -> None:
    """The store that is on the disk already is only described, and takes no more of the disk."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {"store": {}})
    assert set(_read(tmp_path / "d/002-store.conf")) == {"type", "label", "uuid", "weight"}


def test_store_from_a_file_is_copied_block_by_block(tmp_path: Path) -> None:
    """A store in a file of its own is copied as it is."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {"store": {"CopyBlocks": "/x/store"}})
    assert _read(tmp_path / "d/002-store.conf")["copyblocks"] == "/x/store"


def test_colons_and_percents_in_paths_are_escaped() -> None:
    """A colon separates source from target, and a percent begins a specifier: both are escaped (repart.d(5))."""
    text = repart.definition(default().esp, DEFAULT_SEED, {"/a": "/b:c%d"})
    assert "CopyFiles=/b\\x3ac%%d:/a" in text.splitlines()


@pytest.mark.parametrize("name", ["/a\nb", os.fsdecode(b"/d\xe9")])
def test_path_that_no_definition_can_hold_is_refused(name: str) -> None:
    """Systemd-repart leaves out a line that it cannot read, and makes a disk without it."""
    with pytest.raises(InputError, match="takes no path like"):
        repart.definition(default().esp, DEFAULT_SEED, {"/a": name})


def test_uuids_follow_from_the_seed() -> None:
    """One seed gives one UUID for each partition, another seed others."""
    esp, root = default().esp, default().root
    assert repart.partition_uuid(DEFAULT_SEED, esp) == repart.partition_uuid(DEFAULT_SEED, esp)
    assert repart.partition_uuid(DEFAULT_SEED, esp) != repart.partition_uuid(DEFAULT_SEED, root)
    assert repart.partition_uuid("0" * 32, esp) != repart.partition_uuid(DEFAULT_SEED, esp)
