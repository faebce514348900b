"""Partition definitions follow from the contract and the seed, and from nothing else."""

import configparser
import os
from dataclasses import replace
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
    """Repart reads them in the order of their names: it is the contract's, whatever partitions are called."""
    partitions = tuple(replace(partition, name=f"a/{partition.name}") for partition in default().partition)
    repart.write_definitions(tmp_path / "d", replace(default(), partition=partitions), DEFAULT_SEED, {})
    labels = [_read(path)["label"] for path in sorted((tmp_path / "d").iterdir())]
    assert labels == [partition.label for partition in default().partition]


def test_a_size_is_whole_blocks() -> None:
    """Repart rounds the least size up, and the largest down: neither is left to it, nor what it does with the rest."""
    text = repart.definition(replace(default().root, size="100000000"), DEFAULT_SEED, {})
    assert {"SizeMinBytes=100003840", "SizeMaxBytes=100003840"} <= set(text.splitlines())


def test_a_size_is_enough_for_the_file_system() -> None:
    """Repart makes a small one as large as its file system has to be: what is behind it would be elsewhere."""
    assert repart.least_size(replace(default().root, size="16M")) == 32 << 20


def test_percents_in_a_label_are_escaped() -> None:
    """A percent begins a specifier."""
    text = repart.definition(replace(default().root, label='a%b"'), DEFAULT_SEED, {})
    assert 'Label=a%%b"' in text.splitlines()


def test_store_in_place_is_neither_formatted_nor_filled(tmp_path: Path) -> None:
    """The store that is on the disk already is only described, and takes no more of the disk."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {"store": {}})
    store = _read(tmp_path / "d/002.conf")
    assert set(store) == {"type", "label", "uuid", "sizeminbytes", "sizemaxbytes"}
    # Repart takes what is there for the first definition of its type.
    assert store["type"] == store["uuid"]


def test_store_from_a_file_is_copied_block_by_block(tmp_path: Path) -> None:
    """A store in a file of its own is copied as it is."""
    repart.write_definitions(tmp_path / "d", default(), DEFAULT_SEED, {"store": {"CopyBlocks": "/x/store"}})
    assert _read(tmp_path / "d/002.conf")["copyblocks"] == "/x/store"


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
