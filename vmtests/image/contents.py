"""What a disk image holds, as facts to compare: table, ESP, kernels, initrds, store paths, units, files."""

import hashlib
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vmtests.host.tools import Toolbox
from vmtests.image import gpt, initramfs, layout, pe
from vmtests.image.check import clean
from vmtests.image.erofsfiles import ErofsFiles
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.layout import Volume
from vmtests.image.source import Source, open_disk
from vmtests.sizes import format_size
from vmtests.text import printable

SECTIONS = (
    "partition", "identifier", "kernel", "command line", "ESP", "initrd", "unit", "store", "file", "left out",
)  # fmt: skip
"""What is compared, in this order; docs/diff.md says what each is."""

_FILES = 500_000  # of a file system
_NAMES = 500_000  # of a section; what has others is counted, as the facts of one name
_TEXT = 16 << 10  # bytes of a file whose lines are told
_WHOLE = 64 << 20  # bytes of a file that are compared; of a larger one its size, and so many bytes
_ALL = 32 << 30  # bytes of files that are read, in all: many may be the same few, or holes
_LINK = 4096
_TEXTS = 128 << 20  # bytes of texts whose lines are kept
_INITRDS = 16  # that are looked into
_ALIKE = 16  # facts of one name that are kept; the others are counted, and summed up
_OTHERS = "…"
_SUM = (1 << 64) - 1
_STORE_PATH = re.compile(r"(?P<hash>[0-9a-z]{32})-(?P<name>.+)")
_VERSION = re.compile(r"-(?=\d)")
_STORE = "/nix/store"
_UNIT = re.compile(r"(?:^|/)(?:etc|lib|usr/lib|run)/systemd/system/(?P<unit>.+)|-units/(?P<nix>[^/]+(?:/[^/]+)?)$")
_UNITS_OF = re.compile(r"(?:-units$|/(?:etc|lib|systemd|system)$|/[^/]+\.(?:d|wants|requires|upholds)$|-etc$)")
_SECRET = re.compile(r"(?:^|/)g?shadow-?$|(?:_key|\.key|\.pem|\.p12)$|/private/|password|passwd|secret", re.IGNORECASE)
_INITRD = re.compile(r"(?:^|/)(?:boot/(?:.*/)?)?(?:initrd|initramfs)[^/]*$|-initrd[^/]*$")

Content = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What is known of a thing, in words that are equal where it is; `lines` are its text, if that may be told.

    Of more than a handful of one name the first by the alphabet are in `each`, and all are in `count` and `total`.
    """

    each: tuple[str, ...]
    lines: tuple[str, ...] | None = None
    cut: bool = False
    count: int = 0
    total: int = 0

    @property
    def told(self) -> str:
        """All of it in one line."""
        return "; ".join([*self.each, *([f"and more, {_summed(self.count, self.total)}"] if self.cut else [])])


@dataclass(slots=True)
class Contents:
    """The facts of an image by section and name."""

    facts: dict[str, dict[str, Fact]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    looked_at: int = 0
    """Bytes of files that were read."""
    initrds: int = 0
    count: int = 0
    """Facts that were noted, also those that another has hidden: the same of two initrds is told once."""
    total: int = 0
    """Their sum, in whatever order they came."""
    place: int = 0
    """The partition whose facts are noted."""
    _kept: int = 0

    @property
    def summed(self) -> str:
        """How many facts there are, and which."""
        return _summed(self.count, self.total)

    def add(self, section: str, name: str, told: str, lines: tuple[str, ...] | None = None) -> None:
        """Note a fact; of several with one name a handful is kept, and nothing is lost from what they sum up to."""
        known, name = self.facts[section], _whole(name)
        value = _digest(f"{name}\0{told}")
        self.count, self.total = self.count + 1, self.total + _digest(f"{self.place}\0{section}\0{value}") & _SUM
        if name not in known and len(known) >= _NAMES:
            name, lines = _OTHERS, None
        before = known.get(name, Fact(each=()))
        each = sorted({*before.each, told})
        self._kept += 0 if lines is None else sum(map(len, lines))
        known[name] = Fact(
            each=tuple(each[:_ALIKE]),
            lines=lines if self._kept <= _TEXTS else None,
            cut=before.cut or len(each) > _ALIKE,
            count=before.count + 1,
            total=before.total + value & _SUM,
        )


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def _summed(count: int, total: int) -> str:
    return f"{count} in all, sum {total:016x}"


def _whole(text: str) -> str:
    """Return `text` as it can be shown; what was cut or replaced for that is in a digest, which keeps it apart."""
    shown = clean(text)
    return shown if shown == text else f"{shown} ({_digest(text):016x})"


def read(path: Path, toolbox: Toolbox) -> Contents:
    """Read an image; raises InputError, HostError as `open_disk`. What cannot be read in it is `left out`."""
    found = Contents()
    with open_disk(path, toolbox) as disk:
        size = gpt.sector_size(disk) or 512
        if gpt.sector_size(disk) is None and not gpt.is_protective(disk):
            table = gpt.Table(sector_size=size, header=None, entries=(), checks=())
        else:
            table = gpt.read(disk, size)
        for volume in layout.volumes(disk, table):
            found.place = volume.number
            _table(volume, found)
            try:
                _Reader(disk, volume, toolbox, found).read()
            except (FilesError, initramfs.InitramfsError) as error:
                found.add("left out", volume.where, str(error))
    return found


def _table(volume: Volume, found: Contents) -> None:
    system = volume.system
    kind = "no file system" if system is None else f"{system.type} {_whole(system.label)!r}"
    name = volume.label or str(volume.number)
    place = f"{format_size(volume.content.size)} at {format_size(volume.content.offset)}"
    found.add("partition", name, f"{volume.number}: {volume.type}, {place}, {kind}")
    found.add("identifier", f"{name}, partition", volume.unique)
    if system is not None and system.uuid:
        found.add("identifier", f"{name}, file system", system.uuid)


class _Reader:
    """Reads the files of one volume."""

    def __init__(self, disk: Source, volume: Volume, toolbox: Toolbox, found: Contents) -> None:
        self._disk = disk
        self._volume = volume
        self._toolbox = toolbox
        self._found = found

    def read(self) -> None:
        kind = "" if self._volume.system is None else self._volume.system.type
        if kind == "vfat":
            files = layout.fat_files(self._volume.content, self._disk)
            if files is None:
                raise FilesError("it is too large to be read out of this format")
            for path in sorted(files.names().values()):
                self._on_esp(path, files)
        elif kind == "erofs":
            self._tree(ErofsFiles(self._volume.content))
        elif kind.startswith("ext"):
            self._tree(ExtFiles(self._volume.content))
        elif kind:
            self._found.add("left out", self._volume.where, f"the files of {kind} are not read")

    def _on_esp(self, path: str, files: FatFiles) -> None:
        content = self._counted(lambda: files.chunks(path, 0, 1 << 40))
        head = files.read(path, pe.HEAD)
        told, lines = _file(content, path)
        self._found.add("ESP", path, told, lines)
        program = pe.parse(head) if head.startswith(b"MZ") else "none"
        if isinstance(program, str):
            if pe.initrd_format(head[:16]) is not None:
                self._initrd(path, content())
            return
        kernel = pe.parse_kernel(head)
        if program.is_uki:
            sections = {name: program.sections.get(name) for name in (".cmdline", ".linux", ".initrd")}
            if (words := sections[".cmdline"]) is not None:
                raw = files.pick(path, ((words.offset, min(words.size, _TEXT)),))[0]
                text = raw.rstrip(b"\0").decode("utf-8", "replace").strip()
                self._found.add("command line", path, printable(text, _TEXT), (printable(text, _TEXT),))
            if (linux := sections[".linux"]) is not None:
                kernel = pe.parse_kernel(files.pick(path, ((linux.offset, min(linux.size, pe.HEAD)),))[0])
            if (initrd := sections[".initrd"]) is not None:
                self._initrd(path, files.chunks(path, initrd.offset, initrd.size))
        if kernel is not None:
            self._found.add("kernel", path, f"Linux {clean(kernel.release)}")

    def _counted(self, content: Content) -> Content:
        def counted() -> Iterator[bytes]:
            for chunk in content():
                self._found.looked_at += len(chunk)
                if self._found.looked_at > _ALL:
                    raise FilesError("its files have more bytes than are read")
                yield chunk

        return counted

    def _initrd(self, path: str, chunks: Iterable[bytes]) -> None:
        self._found.initrds += 1
        if self._found.initrds > _INITRDS:
            self._found.add("left out", path, f"more than {_INITRDS} initrds are not looked into")
            return

        def look(member: initramfs.Member) -> None:
            def content() -> Iterator[bytes]:
                while data := member.read(1 << 20):
                    yield data

            self._add("initrd", f"/{member.name}", member.mode, member.size, content, "initrd")

        try:
            initramfs.walk(chunks, self._toolbox, look)
        except (initramfs.InitramfsError, FilesError) as error:
            self._found.add("left out", path, str(error))

    def _tree(self, files: ErofsFiles | ExtFiles) -> None:
        if isinstance(files, ErofsFiles) and any(_STORE_PATH.fullmatch(name) for name, _ in files.top()):
            self._store(files)
            return
        for path, mode, size, content in files.walk(_FILES, lambda path: not path.startswith(f"{_STORE}/")):
            if path.startswith(f"{_STORE}/"):
                self._store_path(path.removeprefix(f"{_STORE}/"))
                continue
            content = self._counted(content)
            self._add("file", path, mode, size, content, "system")
            if _INITRD.search(path) and stat.S_ISREG(mode) and size > _TEXT:
                self._initrd(path, content())

    def _store(self, files: ErofsFiles) -> None:
        """Read a file system whose root is the store: names say all of a path, but units are looked for in them."""

        def enter(path: str) -> bool:
            depth = path.count("/")
            return (depth == 1 and bool(_STORE_PATH.fullmatch(path[1:]))) or bool(_UNITS_OF.search(path))

        for path, mode, size, content in files.walk(_FILES, enter):
            if path.count("/") == 1:
                self._store_path(path[1:])
            elif match := _UNIT.search(path):
                self._unit(match, mode, size, self._counted(content), "system")

    def _store_path(self, name: str) -> None:
        if match := _STORE_PATH.fullmatch(name):
            package, *version = _VERSION.split(match["name"], maxsplit=1)
            self._found.add("store", package, f"{''.join(version)} ({match['hash'][:8]})".strip())
        else:
            self._found.add("store", name, "no store path")

    def _add(self, section: str, path: str, mode: int, size: int, content: Content, where: str) -> None:
        if match := _UNIT.search(path):
            self._unit(match, mode, size, content, where)
            return
        told, lines = _told(path, mode, size, content)
        self._found.add(section, path, told, lines)

    def _unit(self, match: re.Match[str], mode: int, size: int, content: Content, where: str) -> None:
        if not stat.S_ISDIR(mode):
            told, lines = _told(match[0], mode, size, content)
            self._found.add("unit", f"{match['unit'] or match['nix']} ({where})", told, lines)


def _told(path: str, mode: int, size: int, content: Content) -> tuple[str, tuple[str, ...] | None]:
    kind, rights = stat.S_IFMT(mode), f"{stat.S_IMODE(mode):04o}"
    if kind == stat.S_IFDIR:
        return f"directory {rights}", None
    if kind == stat.S_IFLNK:
        # Linux takes no longer one (PATH_MAX); what an image says of its size may be anything.
        target = b"" if size > _LINK else b"".join(content())
        said = f"to {_whole(target.decode('utf-8', 'surrogateescape'))}" if target else f"of {size} bytes"
        return f"link {said}", None
    if kind != stat.S_IFREG:
        return f"special file {rights}", None
    try:
        told, lines = _file(content, path, size)
    except FilesError as error:
        return f"{rights} {size} bytes, not compared: {error}", None
    return f"{rights} {told}", lines


def _file(content: Content, path: str, known: int | None = None) -> tuple[str, tuple[str, ...] | None]:
    """Return what is said of a file's content, and its lines where it is a short text and no secret.

    Where its size is `known`, no more of it is read than is compared: a file of holes may have any size.
    """
    digest, size, text = hashlib.sha256(), 0, b""
    for chunk in content():
        if size < _WHOLE:
            digest.update(chunk)
        elif known is not None:
            size = known
            break
        size += len(chunk)
        text += chunk[: max(_TEXT + 1 - len(text), 0)]
    told = f"{size} bytes, sha256 {digest.hexdigest()[:12]}"
    if size > _TEXT or b"\0" in text or _SECRET.search(path):
        return told, None
    return told, tuple(printable(line, _TEXT) for line in text.decode("utf-8", "replace").splitlines())
