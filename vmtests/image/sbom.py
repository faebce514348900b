"""What an image is made of, as a bill of materials: CycloneDX 1.6 (ECMA-424), which scanners for advisories read.

Packages are what dpkg and apk have written down (deb(5), apk's installed database), and the paths of a Nix store by
their names. The reference image's come out of the tree of Debian's packages that it is made of.
"""

import gzip
import hashlib
import json
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vmtests.host.tools import Toolbox
from vmtests.host.tree import make_tree
from vmtests.image import gpt, layout
from vmtests.image.check import clean
from vmtests.image.erofsfiles import ErofsFiles
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import FilesError
from vmtests.image.reference import recipe
from vmtests.image.source import open_disk

_FILES = 200_000  # of a file system
_PARTS = 200_000
_DATABASE = 32 << 20  # bytes that are read of one
_DATABASES_LIMIT = 4 * _DATABASE  # of all: many may be the same file
_RELEASE = 64 << 10
_VALUE = 4096  # characters of a field
_FIELDS = frozenset(("Package", "Version", "Architecture", "Status", "P", "V", "A", "L"))
_LINE = re.compile(r"[^\n]*\n?")
_STORE_PATH = re.compile(r"[0-9a-z]{32}-(?P<name>.+)")
_VERSION = re.compile(r"-(?=\d)")
_CHANGELOG = re.compile(rb"(?P<source>[a-z0-9][a-z0-9.+-]*) \((?P<version>[^()\s]+)\) ")
_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
_DATABASES = frozenset(("/var/lib/dpkg/status", "/lib/apk/db/installed", "/usr/lib/apk/db/installed"))
_SINGLE = "/var/lib/dpkg/status.d/"  # of images without dpkg, a file a package
_RELEASES = ("/etc/os-release", "/usr/lib/os-release")
_WAYS = frozenset(("/etc", "/lib", "/lib/apk", "/lib/apk/db", "/usr", "/usr/lib", "/usr/lib/apk", "/usr/lib/apk/db"))
_MORE_WAYS = frozenset(("/var", "/var/lib", "/var/lib/dpkg", "/var/lib/dpkg/status.d", "/nix", "/nix/store"))


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A package: its kind (`deb`, `apk`, `nix`), name, version, architecture, and the licences that it names."""

    kind: str
    name: str
    version: str = ""
    architecture: str = ""
    licences: tuple[str, ...] = ()


@dataclass(slots=True)
class Bill:
    """The parts of an image, its system's os-release, and what could not be read."""

    parts: set[Part]
    release: dict[str, str]
    left_out: list[str]
    looked_at: int = 0
    """Bytes of databases that were read."""

    def add(self, parts: Iterable[Part]) -> None:
        """Take parts; raises FilesError where no system has so many."""
        for part in parts:
            self.parts.add(part)
            if len(self.parts) > _PARTS:
                raise FilesError(f"it has more than {_PARTS} packages")

    def to_json(self, name: str) -> dict[str, Any]:
        """Return the CycloneDX document of the image `name`; the same image has the same."""
        distribution = self.release.get("ID", "")
        parts = [self._component(part, distribution) for part in sorted(self.parts)]
        if distribution:
            version = self.release.get("VERSION_ID", "")
            parts.insert(
                0, {"type": "operating-system", "name": distribution, **({"version": version} if version else {})}
            )
        digest = hashlib.sha256(json.dumps([name, parts]).encode()).digest()
        properties = [{"name": "vmtests:left-out", "value": text} for text in self.left_out]
        tool = {"type": "application", "name": "vmtests", "version": metadata.version("vmtests")}
        return {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
            "version": 1,
            "metadata": {
                "tools": {"components": [tool]},
                "component": {"type": "operating-system", "name": name},
                **({"properties": properties} if properties else {}),
            },
            "components": parts,
        }

    @staticmethod
    def _component(part: Part, distribution: str) -> dict[str, Any]:
        space = {"deb": f"{distribution or 'debian'}/", "apk": f"{distribution or 'alpine'}/"}.get(part.kind, "")
        at = f"@{quote(part.version, safe=':')}" if part.version else ""
        extra = f"?arch={quote(part.architecture, safe='')}" if part.architecture else ""
        purl = f"pkg:{part.kind}/{space}{quote(part.name, safe=':')}{at}{extra}"
        licences = [{"license": {"name": licence}} for licence in part.licences]
        return {
            "type": "library",
            "bom-ref": purl,
            "name": part.name,
            **({"version": part.version} if part.version else {}),
            "purl": purl,
            **({"licenses": licences} if licences else {}),
        }


def of_disk(path: Path, toolbox: Toolbox) -> Bill:
    """Read the bill of a disk image; raises InputError, HostError as `open_disk`."""
    bill = Bill(set(), {}, [])
    with open_disk(path, toolbox) as disk:
        size = gpt.sector_size(disk)
        table = gpt.read(disk, size) if size else gpt.Table(sector_size=512, header=None, entries=(), checks=())
        for volume in layout.volumes(disk, table):
            kind = "" if volume.system is None else volume.system.type
            try:
                if kind == "erofs":
                    _read(ErofsFiles(volume.content), bill)
                elif kind.startswith("ext"):
                    _read(ExtFiles(volume.content), bill)
                elif kind not in ("", "vfat", "swap"):
                    bill.left_out.append(f"{clean(volume.where)}: the files of {kind} are not read")
            except FilesError as error:
                bill.left_out.append(f"{clean(volume.where)}: {error}")
    return bill


def of_reference(toolbox: Toolbox) -> Bill:
    """Return the bill of the reference image, whatever its modules; it need not be built. Raises HostError."""
    title = "reference tree (Debian 13, about 120 MB to fetch)"
    bill = of_tree(make_tree(recipe()["packages"], name="reference", title=title))
    if toolbox.tree is not None:
        # Its boot loader comes with the tools.
        bill.parts.update(part for part in of_tree(toolbox.tree).parts if part.name.startswith("systemd-boot-efi"))
    return bill


def of_tree(tree: Path) -> Bill:
    """Read the bill of a tree of Debian's packages that no maintainer script has run in, so that dpkg knows none.

    Each has its changelog (Debian policy, 12.7) with its version, and most a copyright file that machines read.
    """
    bill = Bill(set(), {}, [])
    release = tree / "usr/lib/os-release"
    bill.release.update(_release(release.read_text(encoding="utf-8", errors="replace")) if release.is_file() else {})
    for directory in sorted((tree / "usr/share/doc").glob("*")):
        version = ""
        for name in ("changelog.Debian.gz", "changelog.gz"):
            if (file := directory / name).is_file() and (match := _CHANGELOG.match(_unpacked(file))) is not None:
                version = match["version"].decode()
                break
        else:
            continue
        text = (directory / "copyright").read_text("utf-8", "replace") if (directory / "copyright").is_file() else ""
        bill.parts.add(Part("deb", directory.name, version, "", _licences(_LICENCE.findall(text))))
    return bill


def _unpacked(file: Path) -> bytes:
    try:
        with gzip.open(file) as packed:
            return packed.read(1 << 12)
    except (OSError, EOFError, zlib.error):
        return b""


def _licences(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in found if _NAME.fullmatch(name.strip())}))


def _read(files: ErofsFiles | ExtFiles, bill: Bill) -> None:
    def enter(path: str) -> bool:
        return path in _WAYS or path in _MORE_WAYS

    for path, _, size, content in files.walk(_FILES, enter):
        name = path.rpartition("/")[2]
        if match := _STORE_PATH.fullmatch(name) if path in (f"/{name}", f"/nix/store/{name}") else None:
            if not name.endswith(".drv"):
                package, *version = _VERSION.split(match["name"], maxsplit=1)
                bill.add((Part("nix", clean(package), clean("".join(version))),))
        elif path in _RELEASES and size < _RELEASE:
            bill.release.update(_release(_text(content, bill)))
        elif path in _DATABASES or (path.startswith(_SINGLE) and not path.endswith(".md5sums")):
            bill.add(_apk(_text(content, bill)) if "apk" in path else _dpkg(_text(content, bill)))


def _text(content: Callable[[], Iterator[bytes]], bill: Bill) -> str:
    data = bytearray()
    for piece in content():
        data += piece
        bill.looked_at += len(piece)
        if bill.looked_at > _DATABASES_LIMIT:
            raise FilesError("its packages' databases are too large to be read here")
        if len(data) > _DATABASE:
            break
    return data[:_DATABASE].decode("utf-8", "replace")


def _release(text: str) -> dict[str, str]:
    """Return os-release(5)'s fields."""
    fields = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: clean(value.strip("\"' ")) for key, sign, value in fields if sign}


def _dpkg(text: str) -> Iterator[Part]:
    for fields in _paragraphs(text, ": "):
        if "Package" in fields and not fields.get("Status", "").endswith((" config-files", " not-installed")):
            yield Part(
                "deb",
                clean(fields["Package"]),
                clean(fields.get("Version", "")),
                clean(fields.get("Architecture", "")),
            )


def _apk(text: str) -> Iterator[Part]:
    for fields in _paragraphs(text, ":"):
        if "P" in fields:
            words = re.split(r"[\s()]+", fields.get("L", ""))
            licences = _licences(word for word in words if word not in ("AND", "OR", "WITH"))
            yield Part("apk", clean(fields["P"]), clean(fields.get("V", "")), clean(fields.get("A", "")), licences)


def _paragraphs(text: str, separator: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for match in _LINE.finditer(text):  # piece by piece: a list of all lines is some twenty times as large
        line = match[0]
        if not line.strip():
            yield fields
            fields = {}
        elif not line.startswith((" ", "\t")):
            key, sign, value = line.partition(separator)
            if sign and key in _FIELDS:
                fields[key] = value.strip()[:_VALUE]
