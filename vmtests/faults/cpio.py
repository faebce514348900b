"""An initrd's archive, changed in memory: the newc format of Documentation/driver-api/early-userspace/buffer-format.

An archive appended to an initrd can only add and replace; a file that is to be missing needs the archive anew.
"""

import fnmatch
import posixpath
import re
import stat
from dataclasses import dataclass

from vmtests.errors import InputError

_MAGIC = b"070701"
_HEADER = 110
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")
_TRAILER = "TRAILER!!!"


@dataclass(slots=True, kw_only=True)
class Member:
    """A member: its path without a leading slash, its mode with the file type, and its content."""

    name: str
    mode: int
    data: bytes


def parse(archive: bytes) -> list[Member]:
    """Return the members of one archive; raises InputError for what is none."""
    members: list[Member] = []
    at = 0
    while True:
        header = archive[at : at + _HEADER]
        if header[:6] != _MAGIC or not _HEX.fullmatch(header, 6):
            raise InputError(f"the initrd is no newc archive at byte {at}")
        fields = [int(header[start : start + 8], 16) for start in range(6, _HEADER, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + _HEADER : at + _HEADER + name_size - 1].decode("utf-8", "surrogateescape")
        start = _padded(at + _HEADER + name_size)
        if name == _TRAILER:
            return members
        members.append(Member(name=name, mode=mode, data=archive[start : start + size]))
        at = _padded(start + size)


def pack(members: list[Member]) -> bytes:
    """Return an archive of `members`; hard links have become files, owner is root."""
    parts: list[bytes] = []
    trailer = Member(name=_TRAILER, mode=0, data=b"")
    for inode, member in enumerate([*members, trailer]):
        parts.append(head(member.name, member.mode, len(member.data), inode))
        parts += [member.data, bytes(_padded(len(member.data)) - len(member.data))]
    return b"".join(parts)


def head(name: str, mode: int, size: int, inode: int = 0) -> bytes:
    """Return what stands in front of the `size` bytes of a member, padded as the format wants it."""
    path = name.encode("utf-8", "surrogateescape") + b"\0"
    fields = (inode, mode, 0, 0, 1, 1, size, 0, 0, 0, 0, len(path), 0)
    made = _MAGIC + b"".join(b"%08X" % field for field in fields) + path
    return made + bytes(_padded(len(made)) - len(made))


def remove(members: list[Member], pattern: str) -> None:
    """Remove the members that a shell pattern fits; raises InputError when there is none."""
    kept = [member for member in members if not fnmatch.fnmatchcase(f"/{member.name}", pattern)]
    if len(kept) == len(members):
        raise InputError(f"the initrd has no file {pattern}")
    members[:] = kept


def rename(members: list[Member], old: str, new: str) -> None:
    """Move a directory: `{release}` in `old` is one name, and `**/` in front of both is where it was found.

    Distributions have the modules of a kernel below usr/lib, NixOS below a store path.
    """
    words = {"{release}": "[^/]+", "**/": "(?P<above>(?:.+?/)??)"}
    shape = "".join(words.get(part, re.escape(part)) for part in re.split(r"(\{release\}|\*\*/)", old.lstrip("/")))
    directory = re.compile(rf"{shape}(?P<below>(?:/.*)?)", re.DOTALL)
    moved = False
    for member in members:
        if match := directory.fullmatch(member.name):
            member.name = new.lstrip("/").replace("**/", match.groupdict().get("above", "")) + match["below"]
            moved = True
    if not moved:
        raise InputError(f"the initrd has no directory {old}")


def find(members: list[Member], path: str) -> Member:
    """Return the member at `path`; raises InputError when there is none."""
    for member in members:
        if member.name == path.lstrip("/"):
            return member
    raise InputError(f"the initrd has no file {path}")


def replace(members: list[Member], pattern: str, old: str, new: str) -> None:
    """Replace a text in each file that a shell pattern fits; raises InputError when none of them has it."""
    fitting = [it for it in members if stat.S_ISREG(it.mode) and fnmatch.fnmatchcase(f"/{it.name}", pattern)]
    changed = [member for member in fitting if old.encode() in member.data]
    if not changed:
        raise InputError(f"{pattern} in the initrd has no {old!r}" if fitting else f"the initrd has no file {pattern}")
    for member in changed:
        member.data = member.data.replace(old.encode(), new.encode())


def put(members: list[Member], path: str, data: bytes, *, link: bool = False) -> None:
    """Add a file or symlink, with the directories above it; what was there goes."""
    name = path.lstrip("/")
    members[:] = [member for member in members if member.name != name]
    known = {member.name for member in members}
    above = posixpath.dirname(name)
    missing = []
    while above and above not in known:
        missing.append(above)
        above = posixpath.dirname(above)
    members += [Member(name=one, mode=stat.S_IFDIR | 0o755, data=b"") for one in reversed(missing)]
    kind = stat.S_IFLNK | 0o777 if link else stat.S_IFREG | (0o755 if data.startswith(b"#!") else 0o644)
    members.append(Member(name=name, mode=kind, data=data))


def _padded(size: int) -> int:
    """Return the next multiple of four."""
    return -(-size // 4) * 4
