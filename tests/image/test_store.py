"""A real Nix store is kept on the building machine, and its registration is what Nix loads."""

from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.host.scratch import remove
from vmtests.image.store import NixStore


@pytest.fixture
def store(tmp_path: Path) -> NixStore:
    """An empty store."""
    return NixStore(root=tmp_path / "store", toolbox=tools.find())


def _tree(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text(text)
    return tmp_path / name


def test_path_is_named_by_its_content(store: NixStore, tmp_path: Path) -> None:
    """Equal trees of one name have one store path, which is where the store says."""
    one = store.add(_tree(tmp_path, "thing", "content"))
    assert one.startswith("/nix/store/")
    assert one.endswith("-thing")
    assert (store.directory / one.rsplit("/", 1)[-1] / "file").read_text() == "content"


def test_added_once_is_known_by_its_key(store: NixStore, tmp_path: Path) -> None:
    """What was added under a key is found again, until the path is gone; the source is not kept."""
    path = store.add_once("key", _tree(tmp_path, "thing", "content"))
    assert not (tmp_path / "thing").exists()
    assert store.known("key") == path
    remove(store.directory / path.rsplit("/", 1)[-1])
    assert store.known("key") is None


def test_unknown_key_is_unknown(store: NixStore) -> None:
    """A key that was never used has no path."""
    assert store.known("key") is None


def test_registration_has_the_references_that_it_is_given(store: NixStore, tmp_path: Path) -> None:
    """A record holds path, hash, size, deriver and references, as `nix-store --load-db` reads it."""
    one = store.add(_tree(tmp_path, "one", "1"))
    two = store.add(_tree(tmp_path, "two", "2"))
    lines = store.registration([one, two], {two: [one]}).splitlines()
    start = lines.index(two)
    assert lines[start + 1].startswith("sha256:") or len(lines[start + 1]) == 64
    assert int(lines[start + 2]) > 0
    assert lines[start + 3 : start + 6] == ["", "1", one]


def test_registration_loads_into_another_database(store: NixStore, tmp_path: Path) -> None:
    """A database made of the registration knows the paths and their references, though the paths are elsewhere."""
    one = store.add(_tree(tmp_path, "one", "1"))
    two = store.add(_tree(tmp_path, "two", "2"))
    registration = store.registration([one, two], {two: [one]})
    environment = {"NIX_STATE_DIR": str(tmp_path / "state"), "NIX_REMOTE": "local", "NIX_CONF_DIR": str(tmp_path)}
    run = tools.find().run
    run("nix-store", "--option", "build-users-group", "", "--load-db", stdin=registration, env=environment)
    found = run("nix-store", "--option", "build-users-group", "", "--query", "--references", two, env=environment)
    assert found.split() == [one]


def test_unknown_path_is_an_error(store: NixStore, tmp_path: Path) -> None:
    """A path that the store does not have cannot be registered."""
    store.add(_tree(tmp_path, "one", "1"))
    with pytest.raises(HostError):
        store.registration(["/nix/store/00000000000000000000000000000000-none"], {})
