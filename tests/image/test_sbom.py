"""What an image is made of is said in the words that scanners read."""

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtests import cli
from vmtests.host.tools import Toolbox
from vmtests.image import sbom
from vmtests.image.files import FilesError
from vmtests.image.sbom import Bill, Part

STATUS = """Package: base-files
Status: install ok installed
Architecture: amd64
Version: 13.8+deb13u8
Description: Debian base system
 Version: 99 is no field of this one
Package-of: nobody

Package: gone
Status: deinstall ok config-files
Version: 1

Package: \x1b[31mred
Version: 1:2~rc1
"""
INSTALLED = "C:Q1x=\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT AND (GPL-2.0-only)\n\nP:zlib\nV:1.3-r0\n"


class Tree:
    """A file system: what is at which path."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def walk(
        self, limit: int, enter: Callable[[str], bool]
    ) -> Iterator[tuple[str, int, int, Callable[[], Iterator[bytes]]]]:
        """Yield files in directories that are entered, and store paths."""
        del limit
        for path, text in self.files.items():
            above = ["/".join(path.split("/")[:count]) for count in range(2, path.count("/") + 1)]
            if all(enter(directory) for directory in above):
                yield path, 0o100644, len(text), lambda text=text: iter([text.encode()])  # type: ignore[misc]


def bill(files: dict[str, str]) -> Bill:
    """Return the bill of a file system."""
    found = Bill(set(), {}, [])
    sbom._read(Tree(files), found)  # type: ignore[arg-type]
    return found


def test_packages_of_dpkg_are_told() -> None:
    """Name, version and architecture; not one that was removed; a name that plays tricks is escaped."""
    assert bill({"/var/lib/dpkg/status": STATUS}).parts == {
        Part("deb", "base-files", "13.8+deb13u8", "amd64"),
        Part("deb", "\\x1b[31mred", "1:2~rc1"),
    }


def test_packages_without_dpkg_are_told() -> None:
    """Images without dpkg keep a file a package, and checksums beside it."""
    one = "Package: tzdata\nVersion: 2026a\n"
    files = {"/var/lib/dpkg/status.d/tzdata": one, "/var/lib/dpkg/status.d/tzdata.md5sums": "Package: no\n"}
    assert bill(files).parts == {Part("deb", "tzdata", "2026a")}


def test_packages_of_apk_are_told_with_their_licences() -> None:
    """What names no licence, or one that is none, has none."""
    assert bill({"/lib/apk/db/installed": INSTALLED}).parts == {
        Part("apk", "musl", "1.2.5-r9", "x86_64", ("GPL-2.0-only", "MIT")),
        Part("apk", "zlib", "1.3-r0"),
    }


def test_store_paths_are_told_wherever_the_store_is() -> None:
    """The root of a file system of its own, or /nix/store; derivations build things, and are none."""
    name = "0" * 32
    files = {f"/{name}-glibc-2.40-66": "", f"/{name}-x.drv": "", f"/nix/store/{name}-nix-2.31.1": "", "/etc": ""}
    assert bill(files).parts == {Part("nix", "glibc", "2.40-66"), Part("nix", "nix", "2.31.1")}


def test_document_is_what_scanners_read() -> None:
    """CycloneDX with a purl for each part, the system by its os-release; the same image has the same document."""
    release = 'ID=debian\nVERSION_ID="13"\n# no field\n'
    found = bill({"/etc/os-release": release, "/var/lib/dpkg/status": STATUS, f"/{'1' * 32}-bash-5.3": ""})
    document = found.to_json("disk.raw")
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert document["components"][0] == {"type": "operating-system", "name": "debian", "version": "13"}
    assert [one["purl"] for one in document["components"][1:]] == [
        "pkg:deb/debian/%5Cx1b%5B31mred@1:2~rc1",
        "pkg:deb/debian/base-files@13.8%2Bdeb13u8?arch=amd64",
        "pkg:nix/bash@5.3",
    ]
    assert found.to_json("disk.raw") == document
    assert found.to_json("other.raw")["serialNumber"] != document["serialNumber"]


def test_tree_without_dpkg_is_told_by_its_changelogs(tmp_path: Path) -> None:
    """Debian's packages that no script has set up have their versions in their changelogs, licences in copyright."""
    for name, text in {"dash": "dash (0.5.12-12) unstable; urgency=medium\n", "odd": "no changelog\n"}.items():
        directory = tmp_path / "usr/share/doc" / name
        directory.mkdir(parents=True)
        (directory / "changelog.Debian.gz").write_bytes(gzip.compress(text.encode()))
        (directory / "copyright").write_text("Files: *\nLicense: BSD-3-clause\n\nLicense: public domain text\n")
    (tmp_path / "usr/share/doc/dash/changelog.gz").write_bytes(b"\x1f\x8bgarbage")
    (tmp_path / "usr/lib").mkdir()
    (tmp_path / "usr/lib/os-release").write_text("ID=debian\n")
    found = sbom.of_tree(tmp_path)
    assert (found.parts, found.release["ID"]) == ({Part("deb", "dash", "0.5.12-12", "", ("BSD-3-clause",))}, "debian")


def test_command_writes_a_file(
    tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it found is counted on standard error; a place that cannot be is said before the work."""
    made = Bill({Part("nix", "bash", "5.3")}, {}, ["partition 3: the files of btrfs are not read"])
    monkeypatch.setattr(sbom, "of_reference", lambda _: made)
    monkeypatch.setattr("vmtests.host.tools.find", lambda: toolbox)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sbom", "--out", "bill.json"]) == 0
    assert json.loads((tmp_path / "bill.json").read_text())["components"][0]["name"] == "bash"
    said = capsys.readouterr().err
    assert "1 of nix" in said
    assert "left out: partition 3" in said
    assert cli.main(["sbom", "--out", "nowhere/bill.json"]) == 2
    assert cli.main(["sbom", "none.raw"]) == 2


@pytest.mark.parametrize("text", ["a\n\n", "a:\n", "L:" + "a " * 4_000_000])
def test_database_of_nothing_costs_little(text: str) -> None:
    """Lines, paragraphs and words are not all kept at once: a small image can hold millions."""
    text *= (1 << 20) // len(text) or 1
    tracemalloc.start()
    try:
        assert list(sbom._apk(text)) == []
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_packages_without_end_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No system has so many, nor databases of such a size; both are told."""
    monkeypatch.setattr(sbom, "_PARTS", 10)
    monkeypatch.setattr(sbom, "_DATABASES_LIMIT", 1000)
    bill = sbom.Bill(set(), {}, [])
    with pytest.raises(FilesError, match="more than 10 packages"):
        bill.add(sbom._dpkg("".join(f"Package: a{number}\n\n" for number in range(100))))
    with pytest.raises(FilesError, match="too large to be read here"):
        sbom._text(lambda: iter([b"x" * 600] * 9), bill)
