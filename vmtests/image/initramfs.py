"""What an initrd holds, as far as a boot depends on it: kernel modules of the kernel that is booted.

The format is Documentation/driver-api/early-userspace/buffer-format.rst: archives in the newc format one behind the
other, the last of them compressed as a rule. Everything is read once, piece by piece: an initrd of zeros, or one that
unpacks to a terabyte, costs no memory, and no more time than LIMIT takes.
"""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from vmtests.causes import Cause
from vmtests.contract import Contract
from vmtests.host.tools import Toolbox
from vmtests.image.check import Check, breach, clean, note, passed
from vmtests.image.earlyinit import Node, interpreter
from vmtests.image.files import FilesError
from vmtests.image.stream import Stream, StreamError, packing_of, unpacked

LIMIT = 256 << 20
"""Bytes of an initrd, packed and unpacked each, that are looked at."""

_SUBJECT, _WHAT = "ESP", "initrd modules"
_MAGICS = (b"070701", b"070702")
_HEADER = 110
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")
_NAME_LIMIT = 4096
_FILE_NAME = 255  # bytes of a file's own (NAME_MAX)
_BUILTIN_LIMIT = 1 << 17  # bytes of what is built in, of one kernel; Debian's has 15 KiB
_RELEASES = 16  # of which that is kept
_TRAILER = b"TRAILER!!!"
_PIECE = 1 << 20
_NOTHING = bytes(_PIECE)
_REMEMBERED = 50_000  # files of an initrd
_LINE = 256  # bytes of a script's first line (BINPRM_BUF_SIZE)
_MEMBERS = 300_000  # of an initrd; whole systems in one have less
_ARCHIVES = 200  # of an initrd; most have two
# NixOS has them in a store path of their own.
_WHERE = r"(?:usr/|nix/store/[^/]+/)?lib/modules/(?P<release>[^/]+)/"
_MODULE = re.compile(rf"{_WHERE}(?:.*/)?(?P<name>[^/]+)\.ko(?:\.\w{{1,4}})?$")
_USUAL = re.compile(r"(?:scripts/local|(?:usr/)?lib/dracut/.*|var/lib/dracut/.*)$")
_UNUSUAL = re.compile(r"ostree|overlay|casper|live|dmsquash|ignition|afterburn|nixos|systemd-volatile|nfs-?root")
_BUILTIN = re.compile(rf"{_WHERE}modules\.builtin$")


class InitramfsError(Exception):
    """An initrd that cannot be looked into; the message says why."""


class CutError(InitramfsError):
    """An initrd whose end is missing."""


@dataclass(slots=True)
class Modules:
    """Names of modules by kernel release, and of those that `modules.builtin` says are built in."""

    loadable: dict[str, set[str]] = field(default_factory=dict)
    builtin: dict[str, set[str]] = field(default_factory=dict)
    usual: bool = False
    """Whether it is one that mounts root and starts what is there: initramfs-tools' or dracut's."""
    unusual: bool = False
    """Whether it has something that may lay something over root, or look for its init elsewhere."""
    tree: dict[str, Node] | None = field(default_factory=dict)
    """What is in it, by paths without a slash in front; None where that is too much, or not known to the end."""

    @property
    def hands_over(self) -> bool:
        """Whether it surely starts an init of the root file system."""
        return self.usual and not self.unusual


def check(packed: bytes, path: str, release: str | None, contract: Contract, toolbox: Toolbox) -> Iterator[Check]:
    """Check the initrd against the kernel `release` that boots it; `path` names it in sentences."""
    yield from check_release(iter([packed]), path, release, toolbox, wanted=wanted(contract))


def check_release(
    chunks: Iterable[bytes], path: str, release: str | None, toolbox: Toolbox, *, wanted: Iterable[str] = ()
) -> Generator[Check, None, Modules | None]:
    """Check that an initrd, given piece by piece, has modules of the kernel that boots it, and those `wanted`.

    Gives what is in it in the end; None where that cannot be read.
    """
    try:
        found = scan(chunks, toolbox)
    except CutError as error:
        # The kernel says so and goes on with what it has, which is no whole system (init/initramfs.c).
        text = f"initrd {path} was cut: {error}"
        yield breach(_SUBJECT, _WHAT, "cut", text, "copy it again", cause=Cause.INITRD_INVALID)
        return None
    except (InitramfsError, FilesError) as error:
        yield note(_SUBJECT, _WHAT, "unknown", f"initrd {path} was not looked into: {error}")
        return None
    if not found.loadable or release is None:
        yield passed(_SUBJECT, _WHAT, "none")
        return found
    if release not in found.loadable:
        others = ", ".join(sorted(found.loadable)[:3])
        text = f"initrd {path} has modules of kernel {others}; the kernel that is booted is {release}"
        hint = "make the initrd for the kernel of the boot entry"
        yield breach(_SUBJECT, _WHAT, others, text, hint, cause=Cause.MODULE_MISSING)
        return found
    known = found.loadable[release] | found.builtin.get(release, set())
    if release in found.builtin and (missing := sorted(set(wanted) - known)):
        text = f"initrd {path} has no module {', '.join(missing)} for kernel {release}, which has it not built in"
        hint = "add it: boot.initrd.kernelModules (NixOS), /etc/initramfs-tools/modules, dracut --add-drivers"
        yield breach(_SUBJECT, _WHAT, f"no {', '.join(missing)}", text, hint, cause=Cause.MODULE_MISSING)
    else:
        yield passed(_SUBJECT, _WHAT, f"{len(found.loadable[release])} of {release}")
    return found


def wanted(contract: Contract) -> set[str]:
    """Return the modules that stage 1 needs: those of the file systems that it mounts, and overlay."""
    names = [mount.partition for mount in contract.stage1_mount if mount.partition]
    return {"overlay", *(contract.by_name(name).filesystem for name in names)}


def scan(chunks: Iterable[bytes], toolbox: Toolbox) -> Modules:
    """Return the modules of an initrd that comes piece by piece; raises InitramfsError, FilesError."""
    found = Modules()
    left = iter([_BUILTIN_LIMIT] * _RELEASES)

    def look(member: Member) -> None:
        found.usual |= _USUAL.match(member.name) is not None
        found.unusual |= "/modules/" not in member.name and _UNUSUAL.search(member.name) is not None
        if (match := _MODULE.match(member.name)) and len(match["name"]) + len(match["release"]) < 2 * _FILE_NAME:
            found.loadable.setdefault(match["release"], set()).add(match["name"].replace("-", "_"))
        if match := _BUILTIN.match(member.name):
            names = member.read(next(left, 0)).decode("utf-8", errors="replace").split()
            own = {name.rpartition("/")[2].removesuffix(".ko").replace("-", "_") for name in names}
            found.builtin.setdefault(match["release"], set()).update(own)
        if found.tree is not None:
            _remember(found.tree, member)
            if len(found.tree) > _REMEMBERED:
                found.tree = None

    if not walk(chunks, toolbox, look) or not found.tree:
        found.tree = None
    return found


def _remember(tree: dict[str, Node], member: "Member") -> None:
    target = ""
    if stat.S_ISLNK(member.mode):
        target = member.read(_NAME_LIMIT).decode("utf-8", "replace")
    elif stat.S_ISREG(member.mode) and member.mode & 0o111:
        target = interpreter(member.read(_LINE))
    tree[member.name] = Node(member.mode, target)


class Member:
    """A file of an initrd, while it passes: its path without a leading slash, its mode, and its size in bytes."""

    def __init__(self, name: str, mode: int, size: int, reader: "_Reader") -> None:
        self.name = name
        self.mode = mode
        self.size = size
        self._reader = reader
        self.left = size

    def read(self, limit: int) -> bytes:
        """Return the next bytes of its content, `limit` at most."""
        data = self._reader.take(min(self.left, limit))
        self.left -= len(data)
        return data


def walk(chunks: Iterable[bytes], toolbox: Toolbox, look: Callable[[Member], None]) -> bool:
    """Have `look` see each file of an initrd that comes piece by piece; return whether that was all.

    Raises InitramfsError, FilesError.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        size = 0
        for chunk in chunks:
            if len(chunk) > _PIECE or chunk != _NOTHING[: len(chunk)]:
                os.pwrite(file.fileno(), chunk[: LIMIT - size], size)
            size = min(size + len(chunk), LIMIT)
            os.ftruncate(file.fileno(), size)  # what is nothing but zeros costs nothing
            if size == LIMIT:
                break
        place = 0
        bounds = _Bounds()
        reader: _Reader | None
        while place < size:
            head = os.pread(file.fileno(), 6, place)
            if head[:6] in _MAGICS:
                file.seek(place)
                reader = _Reader(file)
                try:
                    _archive(reader, bounds, look)
                except CutError:
                    if size < LIMIT:  # else it was cut here
                        raise
                place += reader.place or size
            elif head[:1] == b"\0":
                place += _zeros(os.pread(file.fileno(), _PIECE, place))
            else:
                packing = packing_of(head)
                if packing is None:
                    raise InitramfsError("it is compressed with something that is not read here")
                os.lseek(file.fileno(), place, os.SEEK_SET)
                reader = None
                try:
                    with unpacked(file.fileno(), packing, toolbox) as stream:
                        reader = _Reader(stream)
                        while reader.place < LIMIT and _archive(reader, bounds, look):
                            pass
                except StreamError as error:
                    if "ends too early" in str(error) and size < LIMIT:
                        raise CutError(str(error)) from error
                    if reader is None or reader.archives == 0:
                        raise InitramfsError(f"it cannot be unpacked: {error}") from error
                    # What comes behind a stream is skipped by the kernel, or another one; a tool may refuse it.
                    return False
                return reader.place < LIMIT
        return size < LIMIT


def _zeros(data: bytes) -> int:
    """Return how many zeros `data` begins with; most data is nothing else, which is seen at once."""
    return len(data) if data == _NOTHING[: len(data)] else len(data) - len(data.lstrip(b"\0"))


class _Bounds:
    """Counts what an initrd holds: a small one can unpack to millions of archives, or members."""

    def __init__(self) -> None:
        self._archives = self._members = 0

    def archive(self) -> None:
        self._archives += 1
        if self._archives > _ARCHIVES:
            raise InitramfsError(f"it has more than {_ARCHIVES} archives")

    def member(self) -> None:
        self._members += 1
        if self._members > _MEMBERS:
            raise InitramfsError(f"it has more than {_MEMBERS} members")


class _Reader:
    """Reads a stream from its beginning, and knows how far it is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._ahead = b""  # what was read, from `_at` on: members are small, and a read costs more than a slice
        self._at = 0
        self.place = 0
        self.short = False
        """Whether the stream ended before what was to be skipped."""
        self.archives = 0
        """Archives that were read to their ends."""

    def take(self, size: int) -> bytes:
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        while len(data) < size and (more := self._stream.read(_PIECE)):
            self._ahead, self._at = more, size - len(data)
            data += more[: self._at]
        self.place += len(data)
        return data

    def skip(self, size: int) -> None:
        while size > 0 and self.place < LIMIT and (data := self.take(min(_PIECE, size))):
            size -= len(data)
        self.short |= size > 0

    def skip_zeros(self) -> None:
        while self.place < LIMIT and (data := self.take(_PIECE)):
            if (zeros := _zeros(data)) < len(data):
                self._ahead, self._at = data + self._ahead[self._at :], zeros
                self.place -= len(data) - zeros
                return


def _archive(reader: _Reader, bounds: _Bounds, look: Callable[[Member], None]) -> bool:
    """Show the files of one archive, up to its trailer or where it is damaged; say whether more may follow."""
    bounds.archive()
    while reader.place < LIMIT:
        header = reader.take(_HEADER)
        if len(header) < _HEADER or header[:6] not in _MAGICS or not _HEX.fullmatch(header, 6):
            return False
        bounds.member()
        mode, size, name_size = (int(header[at : at + 8], 16) for at in (14, 54, 94))
        if not 0 < name_size <= _NAME_LIMIT:
            return False
        name = reader.take(name_size)[:-1]
        reader.skip(-(_HEADER + name_size) % 4)
        if name == _TRAILER:
            reader.archives += 1
            reader.skip(-reader.place % 4)
            reader.skip_zeros()
            return True
        path = name.decode("utf-8", errors="replace").removeprefix("./").lstrip("/")
        member = Member(path, mode, size, reader)
        look(member)
        reader.skip(member.left)
        if reader.short and reader.place < LIMIT:
            raise CutError(f"it ends within the file {clean(path)}")
        reader.skip(-size % 4)
    return False
