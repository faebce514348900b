"""The contract file is read strictly, and says what is wrong with another."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from vmtests import contract
from vmtests.errors import InputError
from vmtests.resources import fixture


def _data() -> dict[str, Any]:
    return tomllib.loads(fixture("contract.toml").read_text())


def _refused(data: object) -> str:
    with pytest.raises(InputError) as caught:
        contract.from_data(data, "here")
    return caught.value.message


def test_own_contract_is_valid() -> None:
    """The project's own contract passes its own checks."""
    assert contract.default().version == 1


def test_partitions_are_esp_store_and_root_in_this_order() -> None:
    """The disk begins with the ESP and ends with the root partition."""
    assert ["esp", "store", "root"] == [partition.name for partition in contract.default().partition]


def test_only_the_last_partition_grows() -> None:
    """A partition that grows has nothing behind it."""
    data = _data()
    data["partition"][0]["grow"] = True
    assert _refused(data) == "contract here: only the last partition can grow"


def test_overlay_options_take_a_prefix() -> None:
    """Stage 1 mounts with /sysroot in front, and so the kernel shows it."""
    options = contract.default().store.overlay_options("/sysroot")
    assert options == {
        "lowerdir": "/sysroot/nix/.ro-store",
        "upperdir": "/sysroot/nix/.rw-store/upper",
        "workdir": "/sysroot/nix/.rw-store/work",
    }


def test_store_mounts_end_with_the_overlay() -> None:
    """The last mount of stage 1 is the store itself."""
    found = contract.default()
    assert found.stage1_mount[-1].where == f"/sysroot{found.store.mount}"


@pytest.mark.parametrize("length", [0, 37])
def test_label_must_fit_the_table(length: int) -> None:
    """A GPT label has 1 to 36 characters."""
    data = _data()
    data["partition"][1]["label"] = "x" * length
    assert f"has {length} characters" in _refused(data)


def test_label_of_36_characters_fits() -> None:
    """36 characters are allowed."""
    data = _data()
    data["partition"][1]["label"] = "x" * 36
    assert contract.from_data(data, "here").store_partition.label == "x" * 36


def test_missing_partition_is_named() -> None:
    """A contract without a store is refused by name."""
    data = _data()
    del data["partition"][1]
    assert _refused(data) == "contract here has no partition named store"


def test_unknown_version_is_refused() -> None:
    """A contract of another version is not guessed at."""
    assert "version 2" in _refused({**_data(), "version": 2})


def test_wrong_type_names_the_field() -> None:
    """A field of the wrong type is named with its path."""
    data = _data()
    data["store"]["group"] = "many"
    assert "$.store.group" in _refused(data)


def test_mount_of_an_unknown_partition_is_refused() -> None:
    """A mount of stage 1 names a partition that there is."""
    data = _data()
    data["stage1_mount"][0]["partition"] = "swap"
    assert "swap" in _refused(data)


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    """A contract that cannot be parsed is an error of the input, with the place."""
    (tmp_path / "c.toml").write_text("version = = 1")
    with pytest.raises(InputError, match="not TOML"):
        contract.load(tmp_path / "c.toml")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A contract that does not exist is named."""
    with pytest.raises(InputError, match="cannot be read"):
        contract.load(tmp_path / "none.toml")
