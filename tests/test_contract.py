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


@pytest.mark.parametrize("length", [37])
def test_label_must_fit_the_table(length: int) -> None:
    """A GPT label has 36 characters at most."""
    data = _data()
    data["partition"][1]["label"] = "x" * length
    assert f"has {length} characters" in _refused(data)


def test_label_of_36_characters_fits() -> None:
    """36 characters are allowed."""
    data = _data()
    data["partition"][1]["label"] = "x" * 36
    assert contract.from_data(data, "here").store_partition.label == "x" * 36


@pytest.mark.parametrize(
    ("label", "link"), [("nix-store", "nix-store"), ("EFI System", r"EFI\x20System"), ("a%b/ü€", r"a\x25b\x2fü€")]
)
def test_device_of_a_label_is_udevs_link(label: str, link: str) -> None:
    """Stage 1 waits for the link that udev makes, which has escapes for what is no letter, digit or one of a few."""
    assert contract.Partition(label=label).device == f"/dev/disk/by-partlabel/{link}"


@pytest.mark.parametrize("size", [1, 1024, 8192])
def test_disk_has_sectors_that_disks_have(size: int) -> None:
    """A table can be read with sectors of 512 or 4096 bytes."""
    data = _data()
    data["disk"]["sector_size"] = size
    assert f"no disk has sectors of {size} bytes" in _refused(data)


def test_missing_partition_is_named() -> None:
    """A contract without a store is refused by name."""
    data = _data()
    del data["partition"][1]
    assert _refused(data) == "contract here: a contract with a store needs partitions named store"


def test_unknown_version_is_refused() -> None:
    """A contract of another version is not guessed at."""
    assert "version 2" in _refused({**_data(), "version": 2})


def test_wrong_type_names_the_field() -> None:
    """A field of the wrong type is named with its path."""
    data = _data()
    data["store"]["group"] = "many"
    assert "store.group: expected `int`, got `str`" in _refused(data)


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


def _refused_file(tmp_path: Path, text: str) -> str:
    (path := tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        contract.load(path)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '[[partition]]\nlabel = "a"\n\n[[partition]]\nlable = "b"\n',
            "contract FILE, line 5: partition[1].lable: no contract has this key (hint: did you mean `label`?)",
        ),
        ('"a\\n" = 1\n', r"contract FILE: a\n: no contract has this key"),
        ("[unit]\n", "contract FILE, line 1: unit: no contract has this key (hint: did you mean `units`?)"),
        (
            '[[partition]]\nlabel = "a"\nsize = "2G"\nsize_max = "1G"\n',
            "contract FILE, line 4: partition[0].size_max: 1G is less than size, 2G",
        ),
        (
            '[disk]\nsize = "1G"\n[[partition]]\nlabel = "a"\nsize = "600M"\ncopies = 2\n',
            "contract FILE, line 2: disk.size: partitions of 1.2 GiB do not fit into a disk of 1G",
        ),
        (
            '[disk]\nsize = "1500M"\ngranularity = "1G"\n',
            "contract FILE, line 2: disk.size: 1500M is no multiple of granularity, 1G",
        ),
        (
            '[[partition]]\nlabel = "data"\n[[mount]]\nwhere = "/srv"\npartition = "dta"\n',
            (
                "contract FILE, line 5: mount[0].partition: /srv is of a partition `dta` that the contract does not "
                "have (hint: did you mean `data`?)"
            ),
        ),
        (
            "[[partition]]\n",
            "contract FILE, line 1: partition[0]: it has neither a label nor a type by which to find it",
        ),
        (
            '[[partition]]\ntype = "root-x86_64"\n',
            (
                "contract FILE, line 2: partition[0].type: no partition type is called 'root-x86_64' "
                "(hint: did you mean `root-x86-64`?)"
            ),
        ),
        (
            '[[partition]]\nlabel = "a"\nverity = "b"\n',
            "contract FILE, line 3: partition[0].verity: no other partition is called `b` (hint: there are a)",
        ),
        (
            '[[partition]]\nlabel = "a"\n"a.b" = 1\n',
            "contract FILE, line 3: partition[0].a.b: no contract has this key (hint: there are ",
        ),
        ('[units]\nready = "multi-user"\n', "contract FILE, line 2: units.ready: 'multi-user' is no name of a unit"),
        ('[[mount]]\nwhere = "srv"\n', "contract FILE, line 2: mount[0].where: 'srv' is no absolute path"),
        ('[[mount]]\nwhere = "/srv/"\n', "contract FILE, line 2: mount[0].where: no mount is called '/srv/'"),
        (
            '[[partition]]\nlabel = "a"\nsize = "many"\n',
            "contract FILE, line 3: partition[0].size: 'many' is not a size",
        ),
    ],
)
def test_wrong_contract_is_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    """What is wrong in a contract file is said in one sentence, with line and key, and what was meant."""
    assert _refused_file(tmp_path, text).startswith(sentence)


def test_contract_of_three_lines_is_whole(tmp_path: Path) -> None:
    """Nothing has to be promised but what somebody wants to."""
    (path := tmp_path / "c.toml").write_text('[[mount]]\nwhere = "/"\nfilesystem = "ext4"\n')
    found = contract.load(path)
    assert {contract.Promise.MOUNTS} == found.promises
    assert ("multi-user.target", "ttyS0") == (found.units.ready, found.boot.console)


def test_type_follows_from_its_uuid_and_back() -> None:
    """A partition type is known by its name and by its UUID."""
    named = contract.from_data({"partition": [{"type": "esp"}]}, "here").partition[0]
    numbered = contract.from_data({"partition": [{"type_uuid": named.type_uuid.upper()}]}, "here").partition[0]
    assert ("esp", named.type_uuid) == (numbered.type, numbered.type_uuid)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "version = " + "9" * 5000])
def test_contract_without_end_is_refused(tmp_path: Path, text: str) -> None:
    """Nested deeper than anybody reads, or a number longer than Python takes: one sentence."""
    (path := tmp_path / "contract.toml").write_text(text)
    with pytest.raises(InputError, match="is not TOML"):
        contract.load(path)
