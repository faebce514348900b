"""What is installed is pinned, hashed, and its licences are known."""

import re
import tomllib
from pathlib import Path

from tests.licences import needed, rows

ROOT = Path(__file__).parent.parent
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def canonical(name: str) -> str:
    """Return a name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    """Return the versions in a file of requirements."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {canonical(package): version for package, version in _PIN.findall(text)}


def test_each_package_of_the_lock_has_hashes() -> None:
    """`pip install --require-hashes` takes nothing else; no address of an index is in it."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.partition("\n")[2])
    assert len(blocks) > 50
    assert not [block for block in blocks if "==" in block and "--hash=sha256:" not in block]
    assert "://" not in text


def test_lock_and_constraints_say_the_same() -> None:
    """A version that both name is one version, and all that the project asks for is in the lock."""
    locked, constrained = pins("requirements.lock"), pins("constraints.txt")
    assert not {name for name in locked.keys() & constrained.keys() if locked[name] != constrained[name]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {canonical(re.split(r"[<>=\[ ]", name)[0]) for name in asked} <= locked.keys()


def test_workflows_install_what_is_locked() -> None:
    """Before anything of ours runs; Nix, the site and the audit need none of it."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")]
    made = [line.split() for text in texts for line in re.findall(r"run: make (.*)", text)]
    assert len(made) > 5
    assert not [words for words in made if "LOCKED=1" not in words and not {*words} <= {"nix-check", "site", "audit"}]


def test_each_package_that_is_needed_names_its_licence() -> None:
    """`make licences` knows one for each, down to what the needed ones need."""
    listed = list(rows())
    assert {"paramiko", "cryptography", "cffi"} <= needed().keys()
    assert not [row for row in listed if row.endswith("unknown")]
