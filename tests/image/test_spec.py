"""image.json is read strictly, and names the field or the file at fault."""

import dataclasses
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image import spec
from vmtests.image.spec_check import _ext4_room, check_esp, check_places, check_root
from vmtests.image.survey import Totals
from vmtests.resources import fixture
from vmtests.sizes import GIB, MIB


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """A spec whose files exist, as parsed JSON."""
    (tmp_path / "loader").touch()
    (tmp_path / "store/abc-x").mkdir(parents=True)
    (tmp_path / "reg").touch()
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "list").write_text("/nix/store/abc-x\n/nix/store/gone\n")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200 << 20)
    return {
        "version": 1,
        "name": "test",
        "esp": {"/EFI/BOOT/BOOTX64.EFI": "loader"},
        "store": {"directory": "store", "paths": ["/nix/store/abc-x"]},
        "registration": "reg",
        "root": [
            {"path": "/etc", "source": "etc"},
            {"path": "/tmp", "mode": "1777"},
            {"path": "/usr", "symlink": "x"},
        ],
    }


def _load(tmp_path: Path, data: object) -> spec.ImageSpec:
    (tmp_path / "image.json").write_text(json.dumps(data))
    return spec.load(tmp_path / "image.json")


def _refused(tmp_path: Path, data: object) -> str:
    with pytest.raises(InputError) as caught:
        _load(tmp_path, data)
    return caught.value.message


def test_relative_names_are_relative_to_the_file(tmp_path: Path, data: dict[str, Any]) -> None:
    """A relative file name is looked for beside image.json."""
    loaded = _load(tmp_path, data)
    assert loaded.esp["/EFI/BOOT/BOOTX64.EFI"] == tmp_path / "loader"
    assert loaded.store.source("/nix/store/abc-x") == tmp_path / "store/abc-x"


def test_written_spec_reads_back_equal(tmp_path: Path, data: dict[str, Any]) -> None:
    """What `to_json` writes, `load` reads."""
    loaded = _load(tmp_path, data)
    (tmp_path / "again.json").write_bytes(spec.to_json(loaded))
    assert spec.load(tmp_path / "again.json") == loaded


def test_listed_paths_are_paths(tmp_path: Path, data: dict[str, Any]) -> None:
    """Paths that are listed in a file count like those in the spec, each once, whatever editor wrote it."""
    (tmp_path / "store/def-y").mkdir()
    for text in (
        "/nix/store/abc-x\n/nix/store/def-y\n",
        "\ufeff/nix/store/abc-x \r\n\r\n /nix/store/def-y\r\n/nix/store/abc-x\r\n",
    ):
        (tmp_path / "list").write_text(text, encoding="utf-8", newline="")
        data["store"]["path_list"] = "list"
        loaded = _load(tmp_path, data).store
        assert loaded.paths == ("/nix/store/abc-x", "/nix/store/def-y")
        assert loaded.path_list == tmp_path / "list"  # which no image is written over


def test_every_field_is_documented() -> None:
    """docs/image-json.md has a row for each field of the format."""
    text = (Path(__file__).parents[2] / "docs/image-json.md").read_text()
    fields = {field.name for field in dataclasses.fields(spec.ImageSpec)} - {"store"}
    fields |= {f"store.{field.name}" for field in dataclasses.fields(spec.StoreSpec)}
    assert fields == set(re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("version", 2, "version 2"),
        ("esp", {"EFI/x": "loader"}, "esp['EFI/x']: the path is not absolute"),
        ("esp", {"/x": "none"}, "is not a file"),
        ("store", {"directory": "store", "paths": []}, "store: it has no paths"),
        ("store", {"directory": "store", "paths": ["/nix/store/none"]}, "store.paths[0]: "),
        ("store", {"directory": "store", "path_list": "list"}, "store.path_list, line 2: "),
        ("store", {"directory": "store", "paths": ["/nix/store/a/b"]}, "not a path directly below"),
        ("store", {"directory": "store", "paths": ["/usr/abc-x"]}, "not a path directly below"),
        ("store", {"directory": "store", "path_list": "none"}, "cannot be read"),
        ("store", {"directory": "store", "path_list": "reg"}, "store: it has no paths"),
        ("registration", "none", "is not a file"),
        ("state", "nix/var", "not an absolute path"),
        ("seed", "no-uuid", "is not a UUID"),
        ("seed", "{6e8bc2f8-7d6b-4b0a-9c4e-8b2a3a1f5d11}", "is not a UUID as uuidgen(1) writes it"),
        ("seed", "00000000-0000-0000-0000-000000000000", "is not a UUID as uuidgen(1) writes it"),
        ("state", "/nix\0/var", "is no path that Linux takes"),
        ("root", [{"path": "/" + "n" * 256}], "root[0].path: "),
        ("root", [{"path": "/" + "n/" * 2048}], "is no path that Linux takes"),
        ("root", [{"path": "/x", "symlink": ""}], "root[0].symlink: an empty one"),
        ("root", [{"path": "/x", "symlink": "a\0b"}], "is no target that Linux takes"),
        ("root", [{"path": "/x", "symlink": "n" * 4096}], "is no target that Linux takes"),
        ("root", [{"path": "etc"}], "not an absolute path"),
        ("root", [{"path": "/../etc"}], "not an absolute path"),
        ("root", [{"path": "/x", "source": "etc", "symlink": "y"}], "both a source and a symlink"),
        ("root", [{"path": "/x", "source": "none"}], "does not exist"),
        ("root", [{"path": "/x", "mode": "99"}], "is not octal"),
        ("root", [{"path": "/x", "source": "fifo"}], "root[0].source"),
        ("root", [{"path": "/x"}, {"path": "/x", "symlink": "y"}], "root[1].path: /x is there already"),
        ("esp", {"/a": "loader", "/A": "loader"}, "esp['/A']: on FAT it is the same file as esp['/a']"),
        ("esp", {"/a": "loader", "/a/b": "loader"}, "other files of the ESP are below it"),
        ("esp", {"/a:b": "loader"}, "esp['/a:b']: FAT does not take this name"),
        ("esp", {"/a./b": "loader"}, "esp['/a./b']: FAT does not take this name"),
        ("esp", {"/" + "ü" * 128: "loader"}, "FAT does not take this name"),
        ("esp", {"/a": "large"}, "and the ESP of 128 MiB has room for"),
        ("registrtion", "reg", "unknown key registrtion"),
        ("store", {"directory": "store", "path": []}, "unknown key store.path"),
        ("root", [{"path": "/x", "sorce": "etc"}], "unknown key root[0].sorce"),
        ("name", 7, "$.name"),
        ("compression", "zip", "compression: unknown compression 'zip'"),
        ("contract", {"version": 1}, "contract: no partition is called esp or root or store"),
        ("contract", {"partition": [{"label": "x" * 37, "type": "esp"}]}, "partition[0].label: "),
    ],
)
def test_fault_is_named(tmp_path: Path, data: dict[str, Any], key: str, value: object, part: str) -> None:
    """Each fault of a spec is one sentence that names what is wrong."""
    assert part in _refused(tmp_path, {**data, key: value})


@pytest.mark.parametrize(
    ("number", "change", "part"),
    [
        (
            0,
            {"label": "TWELVE-CHARS"},
            "contract.partition[0].label: 'TWELVE-CHARS' has 12 bytes, and a label of FAT",
        ),
        (1, {"label": "nix-store-lower0"}, "contract.partition[1].label: 'nix-store-lower0' has 16 bytes"),
        (2, {"label": "röot-of-the-disk"}, "contract.partition[2].label: 'röot-of-the-disk' has 17 bytes"),
        (2, {"label": "root*"}, "is no label that one partition can have"),
        (2, {"label": "root\nCopyFiles=/etc:/"}, "is no label that one partition can have"),
        (2, {"label": " root"}, "is no label that one partition can have"),
        (2, {"label": "root\\"}, "is no label that one partition can have"),
        (2, {"copies": 2}, "contract.partition[2].copies: "),
        (2, {"filesystem": "btrfs"}, "root is built as ext4, not as btrfs"),
        (0, {"size": None}, "contract.partition[0].size: esp needs one"),
        (2, {"name": "data"}, "no partition is called root"),
    ],
)
def test_contract_that_no_disk_is_built_to_is_refused(
    tmp_path: Path, data: dict[str, Any], number: int, change: dict[str, Any], part: str
) -> None:
    """What a disk can be held to is more than what is built: labels that would be cut, other file systems, copies."""
    with fixture("contract.toml").open("rb") as file:
        contract = {"partition": tomllib.load(file)["partition"]}
    contract["partition"][number].update(change)
    if "size" in change:
        del contract["partition"][number]["size"]
    assert part in _refused(tmp_path, {**data, "contract": contract})


@pytest.mark.parametrize(("sector", "enough", "short"), [(512, "33M", "32M"), (4096, "257M", "256M")])
def test_firmware_takes_an_esp_for_what_it_is(
    contract: Contract, tmp_path: Path, sector: int, enough: str, short: str
) -> None:
    """A FAT32 with too few clusters is another FAT to firmware; with large sectors an ESP has fewer."""
    (tmp_path / "loader").touch()

    def check(size: str) -> None:
        esp, *others = contract.partition
        partitions = (dataclasses.replace(esp, size=size), *others)
        disk = dataclasses.replace(contract.disk, sector_size=sector)
        changed = dataclasses.replace(contract, disk=disk, partition=partitions)
        check_esp({"/loader": tmp_path / "loader"}, changed, "image.json")

    check(enough)
    with pytest.raises(InputError, match=f"FAT32 with sectors of {sector} bytes needs .*, and the ESP has"):
        check(short)


def test_a_file_system_is_a_name(tmp_path: Path, data: dict[str, Any]) -> None:
    """What a contract says of one more partition gets no line of its own among systemd-repart's definitions."""
    with fixture("contract.toml").open("rb") as file:
        contract = tomllib.load(file)
    contract["partition"].insert(0, {"label": "x", "type": "home", "size": "1M", "filesystem": "ext4\nCopyFiles=/:/"})
    assert "partition[0].filesystem: 'ext4\\nCopyFiles=/:/' is no name" in _refused(
        tmp_path, {**data, "contract": contract}
    )


def test_contract_without_a_store_is_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    """A disk can be held to it, but what is built has a store."""
    with fixture("contract.toml").open("rb") as file:
        contract = {"partition": tomllib.load(file)["partition"]}
    assert "contract.store: there is none" in _refused(tmp_path, {**data, "contract": contract})


def test_root_content_has_to_fit_its_partition(contract: Contract, toolbox: Toolbox, tmp_path: Path) -> None:
    """What is let through fits the ext4 that is made: the room is never more than mke2fs leaves, and not much less."""
    for size in (32 * MIB, 64 * MIB, 128 * MIB, 512 * MIB, GIB, 2 * GIB, 4 * GIB, 20 * GIB):
        file = tmp_path / "ext4"
        with file.open("wb") as opened:
            opened.truncate(size)
        toolbox.run("mkfs.ext4", "-q", "-I", "256", "-m", "0", "-b", "4096", "-T", "default", file)
        told = dict(
            line.split(":", 1) for line in toolbox.run("dumpe2fs", "-h", file).splitlines() if line.count(":") == 1
        )
        real = int(told["Free blocks"]) * 4096
        room, inodes = _ext4_room(size)
        assert 0.96 * real < room <= real
        assert inodes == int(told["Free inodes"])
        file.unlink()
    full = Totals(inodes=7, directories=1, blocks=600 * MIB)
    with pytest.raises(InputError, match=r"image x: root: it needs 600.0 MiB in 7 inodes, and .* has room for 484"):
        check_root(full, 0, contract, "image x")
    with pytest.raises(InputError, match="in 40000 inodes"):
        check_root(Totals(inodes=40000), 0, contract, "image x")
    check_root(Totals(inodes=7, directories=1, blocks=400 * MIB), 50 * MIB, contract, "image x")


def test_misspelt_key_is_guessed(tmp_path: Path, data: dict[str, Any]) -> None:
    """A key that is nearly one of the format's gets a hint: without it an image would lack its Nix database."""
    with pytest.raises(InputError) as caught:
        _load(tmp_path, {**data, "registrtion": "reg"})
    assert caught.value.hint == "did you mean 'registration'?"


def test_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    """A file that is no JSON is an error of the input."""
    (tmp_path / "image.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        spec.load(tmp_path / "image.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A spec that does not exist is an error of the input."""
    with pytest.raises(InputError, match="cannot be read"):
        spec.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("/a/b", None, True), ("/a//b/", None, True)], r"root\[1\].path: /a//b/ is there already"),
        ([("/a", None, True), ("/a/c", None, False)], r"root\[1\].path: /a/c is below a symlink or a file: root\[0\]"),
        ([("/a/c", None, False), ("/a", None, True)], r"root\[1\].path: /a is there already: root\[0\] is below it"),
        ([("/a", "tree", False), ("/a/out/x", "file", False)], r"root\[1\].path: /a/out/x is below a symlink"),
        ([("/a", "file", False), ("/a/x", None, False)], r"root\[1\].path: /a/x is below a symlink or a file"),
    ],
)
def test_nothing_is_put_below_a_symlink_or_a_file(
    tmp_path: Path, entries: list[tuple[str, str | None, bool]], said: str
) -> None:
    """It would land where the symlink leads: on the host that builds."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/out").symlink_to("/")
    (tmp_path / "file").write_text("")
    found = [(path, tmp_path / source if source else None, symlink) for path, source, symlink in entries]
    with pytest.raises(InputError, match=said):
        check_places(found, "image.json")


def test_a_directory_of_the_root_is_filled_by_more_than_one_entry(tmp_path: Path) -> None:
    """As /etc is: a tree, and entries in it that the tree has not."""
    (tmp_path / "sub").mkdir()
    check_places([("/etc", tmp_path, False), ("/etc/sub/new", None, True), ("/etc", None, False)], "image.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version":' * 5000, '{"name":"\xff"}'])
def test_file_without_end_is_refused(tmp_path: Path, text: str) -> None:
    """What is nested deeper than anybody reads, or no UTF-8, is one sentence."""
    (path := tmp_path / "image.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"is not JSON|is no text"):
        spec.load(path)


@pytest.mark.parametrize("field", ["esp", "registration", "root"])
def test_a_files_name_that_is_no_text_is_refused(field: str, data: dict[str, Any], tmp_path: Path) -> None:
    """A number where a file is named is an error of that field, and no traceback."""
    data[field] = {"esp": {"/loader": 1}, "registration": 1, "root": [{"path": "/etc", "source": 1}]}[field]
    (tmp_path / "image.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"a file's name is text, not int - at `\$\.{field}"):
        spec.load(tmp_path / "image.json")


@pytest.mark.parametrize("field", ["esp", "registration", "root"])
def test_a_files_name_that_is_too_long_is_refused(field: str, data: dict[str, Any], tmp_path: Path) -> None:
    """What the host refuses to look for is an error of the field that names it."""
    name = "a" * 256
    data[field] = {"esp": {"/loader": name}, "registration": name, "root": [{"path": "/etc", "source": name}]}[field]
    (tmp_path / "image.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"image\.json: {field}.*: File name too long"):
        spec.load(tmp_path / "image.json")
