"""What a running guest tells of itself, parsed into frozen facts.

The parsers are pure functions of text; `Facts` runs the commands that give it.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import msgspec

from vmtests.errors import GuestError
from vmtests.guest.result import Runner
from vmtests.text import printable

_OCTAL = re.compile(rb"\\([0-7]{3})")


def unescape(text: str) -> str:
    r"""Undo the octal escapes of proc(5), such as `\040` for a space."""
    if "\\" not in text:
        return text
    data = _OCTAL.sub(lambda m: bytes([int(m[1], 8) & 0xFF]), text.encode(errors="surrogateescape"))
    return data.decode(errors="replace")


def _option(options: frozenset[str], name: str) -> str | None:
    for option in options:
        key, equals, value = option.partition("=")
        if key == name:
            return value if equals else ""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    `options` are those of this mount (`ro`, `nodev`, `nosuid`, `relatime`), `super_options` those of the
    file system (`lowerdir=…`); a read-only bind of a writable file system has `ro` in the former and `rw` in
    the latter. `root` is the directory of the file system that is mounted, `device` its `major:minor`.
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: frozenset[str]

    def option(self, name: str) -> str | None:
        """Return an option's value, the mount's before the file system's: "" for a flag, None if not set."""
        value = _option(self.options, name)
        return _option(self.super_options, name) if value is None else value

    @property
    def read_only(self) -> bool:
        """Whether writing through this mount gives EROFS, be it the mount's or the file system's doing."""
        return "ro" in self.options or "ro" in self.super_options


class Mounts(Sequence[Mount]):
    """All mounts of a namespace in the kernel's order: what was mounted later comes later."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self._mounts = tuple(mounts)

    @overload
    def __getitem__(self, index: int) -> Mount: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Mount, ...]: ...
    def __getitem__(self, index: int | slice) -> Mount | tuple[Mount, ...]:
        return self._mounts[index]

    def __len__(self) -> int:
        return len(self._mounts)

    def __repr__(self) -> str:
        return f"Mounts({[mount.target for mount in self._mounts]})"

    def at(self, path: str) -> tuple[Mount, ...]:
        """Return the mounts at a path, bottom to top: each stands on its predecessor."""
        here = {mount.id: mount for mount in self._mounts if mount.target == path}
        # A mount over another has that one for its parent; the kernel's order would be wrong after a move.
        above = {mount.parent: mount for mount in here.values() if mount.parent in here and mount.parent != mount.id}
        stack = []
        for mount in (mount for mount in here.values() if mount.parent not in here or mount.parent == mount.id):
            stack.append(mount)
            while (upper := above.pop(stack[-1].id, None)) is not None:
                stack.append(upper)
        return tuple(stack)

    def top(self, path: str) -> Mount:
        """Return the mount that is seen at a path; raises GuestError where there is none."""
        if stack := self.at(path):
            return stack[-1]
        raise GuestError(f"nothing is mounted at {path} in the guest")


def parse_mountinfo(text: str) -> Mounts:
    """Parse /proc/self/mountinfo; raises GuestError for a line that is none."""
    return Mounts([_parse_mount(line) for line in text.split("\n") if line])


def _parse_mount(line: str) -> Mount:
    try:
        # The fields before the lone hyphen vary in number, and no field before it is a hyphen alone.
        before, after = line.split(" - ", 1)
        number, parent, device, root, target, options, *propagation = before.split(" ")
        fstype, source, super_options = after.split(" ", 2)
        return Mount(
            id=int(number),
            parent=int(parent),
            device=device,
            root=unescape(root),
            target=unescape(target),
            options=frozenset(options.split(",")),
            propagation=tuple(propagation),
            fstype=unescape(fstype),
            source=unescape(source),
            super_options=frozenset(map(unescape, super_options.split(","))),
        )
    except ValueError as error:
        raise GuestError(f"{printable(line)!r} is not a line of mountinfo") from error


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as `systemctl list-units` shows it (systemctl(1))."""

    name: str = msgspec.field(name="unit")
    load: str
    active: str
    sub: str
    description: str


class Units(Mapping[str, Unit]):
    """Units by name."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = {unit.name: unit for unit in units}

    def __getitem__(self, name: str) -> Unit:
        return self._units[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)

    def __repr__(self) -> str:
        return f"Units({len(self._units)} of them, failed: {[unit.name for unit in self.failed]})"

    @property
    def failed(self) -> tuple[Unit, ...]:
        """The units that failed, without the sessions of logins.

        logind's scope of a login fails when who logged in has left before it was made, as on a busy host: that tells
        of a visitor, and not of the system.
        """
        return tuple(unit for unit in self._units.values() if unit.active == "failed" and not _SESSION(unit.name))


_SESSION = re.compile(r"session-\w+\.scope").fullmatch


def parse_units(text: str) -> Units:
    """Parse the output of `systemctl list-units --all --plain --no-legend --output=json`; raises GuestError.

    A systemd that gives no JSON, as those before 246, gives lines of five columns.
    """
    lines = [line.lstrip("●* ").split(None, 4) for line in text.splitlines()]
    if text[:1] != "[" and lines and all(len(line) == 5 for line in lines):
        return Units(
            [
                Unit(name=name, load=load, active=active, sub=sub, description=description)
                for name, load, active, sub, description in lines
            ]
        )
    try:
        return Units(msgspec.json.decode(text, type=list[Unit]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GuestError(f"systemctl in the guest gave no list of units: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """An entry of the journal; times in microseconds, `realtime` since the epoch, `monotonic` since boot.

    `unit` is the unit that the entry is about, for the manager's messages too. `fields` has every field as
    text, its first value where it has several, and without those that were too long to be printed.
    """

    monotonic: int
    realtime: int
    boot_id: str
    unit: str | None
    message: str
    message_id: str | None
    fields: Mapping[str, str] = field(repr=False)


def parse_journal(text: str) -> tuple[JournalEntry, ...]:
    """Parse the output of `journalctl -o json`, an object a line (journalctl(1), "Journal JSON Format").

    There a field is a string, null when it was too long, an array of numbers when it is not UTF-8, and an
    array of those when it was there more than once. Raises GuestError for a line that is none.
    """
    return tuple(_parse_entry(line) for line in text.split("\n") if line)


def _parse_entry(line: str) -> JournalEntry:
    try:
        raw = msgspec.json.decode(line, type=dict[str, object])
        fields = {name: text for name, value in raw.items() if (text := _field(value)) is not None}
        return JournalEntry(
            monotonic=int(fields["__MONOTONIC_TIMESTAMP"]),
            realtime=int(fields["__REALTIME_TIMESTAMP"]),
            boot_id=fields["_BOOT_ID"],
            unit=fields.get("UNIT", fields.get("_SYSTEMD_UNIT")),
            message=fields.get("MESSAGE", ""),
            message_id=fields.get("MESSAGE_ID"),
            fields=fields,
        )
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError) as error:
        raise GuestError(f"{printable(line)!r} is not an entry of the journal") from error


def _field(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(byte, int) for byte in value):
            return bytes(value).decode(errors="replace")
        return _field(value[0])
    raise ValueError(f"a field of the journal is a {type(value).__name__}")


def parse_cmdline(text: str) -> tuple[str, ...]:
    """Split a kernel command line; double quotes keep spaces (next_arg in the kernel's lib/cmdline.c)."""
    words = re.findall(r'(?:[^\s"]|"[^"]*"?)+', text)
    return tuple(word.replace('"', "") for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidPath:
    """A registered store path; its NAR's sha256 in hexadecimal, and the NAR's size in bytes."""

    path: str
    nar_hash: str
    nar_size: int
    deriver: str | None
    references: frozenset[str]


def parse_registration(text: str) -> tuple[ValidPath, ...]:
    """Parse the output of `nix-store --dump-db` (nix-store(1)); raises GuestError."""
    lines = iter(text.split("\n"))
    paths = []
    try:
        while path := next(lines, ""):
            nar_hash, nar_size, deriver = next(lines), int(next(lines)), next(lines)
            references = frozenset(next(lines) for _ in range(int(next(lines))))
            paths.append(
                ValidPath(
                    path=path,
                    nar_hash=nar_hash,
                    nar_size=nar_size,
                    deriver=deriver or None,
                    references=references,
                )
            )
    except (ValueError, StopIteration, RuntimeError) as error:
        raise GuestError("nix-store --dump-db in the guest ended in the middle of a path") from error
    return tuple(paths)


class Facts:
    """Asks a guest, anew with every call; each raises GuestError when the guest cannot tell."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def _output(self, command: str) -> str:
        return self._runner.run(command).check().stdout

    def mounts(self) -> Mounts:
        """Return the mounts of the shell's mount namespace, which is the system's."""
        return parse_mountinfo(self._output("cat /proc/self/mountinfo"))

    def units(self) -> Units:
        """Return all units that are in the manager's memory."""
        return parse_units(
            self._output("systemctl list-units --all --plain --full --no-legend --no-pager --output=json")
        )

    def journal(self, *arguments: str) -> tuple[JournalEntry, ...]:
        """Return the entries of this boot that journalctl(1) selects by `arguments`: `--unit=…`, `-k`."""
        arguments = ("--boot", "--no-pager", "--quiet", "--all", "--output=json", *arguments)
        return parse_journal(self._output(shlex.join(("journalctl", *arguments))))

    def cmdline(self) -> tuple[str, ...]:
        """Return the words of the kernel's command line."""
        return parse_cmdline(self._output("cat /proc/cmdline"))

    def boot_id(self) -> str:
        """Return the random id of this boot, 32 hexadecimal digits as in the journal (random(4))."""
        return self._output("cat /proc/sys/kernel/random/boot_id").strip().replace("-", "")

    def valid_paths(self) -> tuple[ValidPath, ...]:
        """Return every store path that is registered in the Nix database."""
        return parse_registration(self._output("nix-store --dump-db"))
