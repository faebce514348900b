"""A tree that exists is whole, and one that cannot be made says why."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import sandbox, tree


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _unpack(calls: list[Path], *, fail: bool = False) -> object:
    def unpack(target: Path, packages: Sequence[str], title: str) -> None:
        calls.append(target)
        target.mkdir(parents=True, exist_ok=True)
        (target / "begun").touch()
        if fail:
            raise HostError("the network went away")

    return unpack


def test_tree_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is whole is used again."""
    calls: list[Path] = []
    monkeypatch.setattr(tree, "unpack_debian", _unpack(calls))
    first = tree.make_tree(["a", "b"], name="tools", title="tree")
    assert first == tree.make_tree(["b", "a"], name="tools", title="tree")
    assert len(calls) == 1


def test_half_made_tree_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose making was interrupted is not taken for whole."""
    calls: list[Path] = []
    monkeypatch.setattr(tree, "unpack_debian", _unpack(calls, fail=True))
    with pytest.raises(HostError):
        tree.make_tree(["a"], name="tools", title="tree")
    monkeypatch.setattr(tree, "unpack_debian", _unpack(calls))
    assert (tree.make_tree(["a"], name="tools", title="tree") / "begun").exists()
    assert len(calls) == 2


def test_other_packages_make_another_tree(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of packages is part of a tree's identity."""
    monkeypatch.setattr(tree, "unpack_debian", _unpack([]))
    assert tree.make_tree(["a"], name="t", title="t") != tree.make_tree(["a", "b"], name="t", title="t")


def test_missing_mmdebstrap_is_said_in_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without mmdebstrap is told what to install."""
    monkeypatch.setattr(sandbox, "search_path", lambda: "/nowhere")
    with pytest.raises(HostError, match="mmdebstrap cannot be run: No such file") as caught:
        tree.unpack_debian(cache / "tree", ["a"], "tree")
    assert "apt-get install mmdebstrap" in (caught.value.hint or "")


def test_old_mmdebstrap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mmdebstrap that is too old is named with its version, before it does anything."""
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\necho mmdebstrap 0.7.5\n")
    program.chmod(0o755)
    monkeypatch.setattr(sandbox, "search_path", lambda: str(tmp_path))
    with pytest.raises(HostError, match=r"mmdebstrap 0\.7 is older than 1\.3"):
        tree.unpack_debian(tmp_path / "tree", ["a"], "tree")
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize(("words", "kept"), [("Failed to fetch b", ["a.deb"]), ("No space left on device", None)])
def test_failed_tree_leaves_only_what_was_fetched(
    words: str, kept: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tree that could not be made only whole packages are left, and on a full disk not even these."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    target = tmp_path / "tree"
    archives = target / "var/cache/apt/archives"
    program.write_text(
        "#!/bin/sh\n[ $1 != --version ] || exec echo mmdebstrap 1.5\n"
        f"mkdir -p {archives}\ntouch {archives}/a.deb\necho 'E: {words}' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sandbox, "search_path", lambda: f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(HostError):
        tree.unpack_debian(target, ["a"], "tree")
    assert not target.exists()
    downloads = tmp_path / "tree.downloads"
    assert kept == (sorted(path.name for path in downloads.iterdir()) if downloads.exists() else None)


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ('Acquire "";\nAcquire::Languages "none";\n', ""),
        (
            'Acquire "";\nAcquire::http::Proxy "http://me:secret@proxy:3128";\nAcquire::https::CaInfo "/ca.pem";\n',
            'Acquire::http::Proxy "http://me:secret@proxy:3128";\nAcquire::https::CaInfo "/ca.pem";\n',
        ),
    ],
)
def test_proxy_of_the_hosts_apt_is_used(
    said: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host's apt reaches mirrors by is handed on, and nobody sees a password in a list of processes."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    (tmp_path / "said").write_text(said)
    (program.parent / "apt-config").write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    program.write_text(
        "#!/bin/sh\n[ $1 != --version ] || exec echo mmdebstrap 1.5\n"
        f'echo "$@" >{tmp_path}/arguments\n'
        f'for word; do case "$word" in --aptopt=/*) cat "${{word#*=}}" >{tmp_path}/given;; esac; done\n'
    )
    for script in program.parent.iterdir():
        script.chmod(0o755)
    monkeypatch.setattr(sandbox, "search_path", lambda: f"{program.parent}:{os.environ['PATH']}")
    tree.unpack_debian(tmp_path / "tree", ["a"], "tree")
    assert ((tmp_path / "given").read_text() if given else "") == given
    assert (tmp_path / "given").exists() == bool(given)
    assert "secret" not in (tmp_path / "arguments").read_text()
