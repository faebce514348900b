"""image.json is read strictly, and names the field or the file at fault."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from vmtests.errors import InputError
from vmtests.image import spec


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """A spec whose files exist, as parsed JSON."""
    (tmp_path / "loader").touch()
    (tmp_path / "store/abc-x").mkdir(parents=True)
    (tmp_path / "reg").touch()
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "fifo")
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
    """Paths that are listed in a file count like those in the spec, each once."""
    (tmp_path / "store/def-y").mkdir()
    (tmp_path / "list").write_text("/nix/store/abc-x\n/nix/store/def-y\n")
    data["store"]["path_list"] = "list"
    assert ("/nix/store/abc-x", "/nix/store/def-y") == _load(tmp_path, data).store.paths


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
        ("esp", {"EFI/x": "loader"}, "is not absolute"),
        ("esp", {"/x": "none"}, "is not a file"),
        ("store", {"directory": "store", "paths": []}, "the store has no paths"),
        ("store", {"directory": "store", "paths": ["/nix/store/none"]}, "does not exist"),
        ("store", {"directory": "store", "paths": ["/nix/store/a/b"]}, "not a path directly below"),
        ("store", {"directory": "store", "paths": ["/usr/abc-x"]}, "not a path directly below"),
        ("store", {"directory": "store", "path_list": "none"}, "cannot be read"),
        ("store", {"directory": "store", "path_list": "reg"}, "the store has no paths"),
        ("registration", "none", "is not a file"),
        ("state", "nix/var", "not an absolute path"),
        ("seed", "no-uuid", "is not a UUID"),
        ("root", [{"path": "etc"}], "not an absolute path"),
        ("root", [{"path": "/../etc"}], "not an absolute path"),
        ("root", [{"path": "/x", "source": "etc", "symlink": "y"}], "both a source and a symlink"),
        ("root", [{"path": "/x", "source": "none"}], "does not exist"),
        ("root", [{"path": "/x", "mode": "99"}], "is not octal"),
        ("root", [{"path": "/x", "source": "fifo"}], "root[0].source"),
        ("root", [{"path": "/x"}, {"path": "/x", "symlink": "y"}], "root[1].path /x is there already"),
        ("esp", {"/a": "loader", "/A": "loader"}, "is the same file as esp['/a'] on FAT"),
        ("esp", {"/a": "loader", "/a/b": "loader"}, "other files of the ESP are below it"),
        ("esp", {"/a:b": "loader"}, "is no name that FAT takes"),
        ("esp", {"/a": "large"}, "and the ESP of 128 MiB has room for"),
        ("registrtion", "reg", "unknown key registrtion"),
        ("store", {"directory": "store", "path": []}, "unknown key store.path"),
        ("root", [{"path": "/x", "sorce": "etc"}], "unknown key root[0].sorce"),
        ("name", 7, "$.name"),
    ],
)
def test_fault_is_named(tmp_path: Path, data: dict[str, Any], key: str, value: object, part: str) -> None:
    """Each fault of a spec is one sentence that names what is wrong."""
    assert part in _refused(tmp_path, {**data, key: value})


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
