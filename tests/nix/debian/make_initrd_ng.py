"""Debian's stand-in for nixpkgs' make-initrd-ng, run by Nix as a builder: make-initrd-ng CONTENTS.json ROOT.

A path is copied under its own name, links with what they point to, programs with the libraries that they need or may
open (.note.dlopen). Debian's programs look for libraries below /usr/lib and /lib64, which are found in the tree; of
the tree only what is named is copied. Python alone is needed, since no package is installed where it runs.
"""

import json
import os
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

TREE = "@debian@"
MULTIARCH = f"{TREE}/lib/x86_64-linux-gnu"
PREFIXES = (("/usr/", f"{TREE}/"), ("/lib64/", f"{TREE}/lib64/"), ("/lib/", f"{TREE}/lib/"), ("/bin/", f"{TREE}/bin/"))
LINKED = {TREE, f"{TREE}/lib", f"{TREE}/lib64"}  # directories of the tree that are linked, and not copied whole
WANTED = {"kmod", "mount", "blkid"}  # features of systemd's notes whose libraries are needed in an initrd
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29


def say(text: str) -> None:
    """Write a line to the build's log."""
    print(f"make-initrd-ng: {text}", file=sys.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a program or library of ELF asks for."""

    needed: list[str]
    search: list[str]
    interpreter: str | None
    optional: list[str]


def read_elf(data: bytes) -> Program | None:
    """Return what a file asks for; None when it is no 64-bit ELF."""
    if data[:5] != b"\x7fELF\x02":
        return None
    headers, sections = struct.unpack_from("<QQ", data, 32)
    header_size, header_count, section_size, section_count, names_index = struct.unpack_from("<HHHHH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic, interpreter = b"", None
    for index in range(header_count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, headers + index * header_size)
        if kind == PT_LOAD:
            loads.append((address, offset, size))
        elif kind == PT_DYNAMIC:
            dynamic = data[offset : offset + size]
        elif kind == PT_INTERP:
            interpreter = data[offset : offset + size].rstrip(b"\0").decode()
    entries = [struct.unpack_from("<qQ", dynamic, at) for at in range(0, len(dynamic) - 15, 16)]
    strings = 0
    for tag, value in entries:
        if tag == DT_STRTAB:
            strings = next(offset + value - start for start, offset, size in loads if start <= value < start + size)

    def text(offset: int) -> str:
        return data[strings + offset : data.index(b"\0", strings + offset)].decode()

    optional: list[str] = []
    if section_count:
        found = [struct.unpack_from("<IIQQQQ", data, sections + at * section_size) for at in range(section_count)]
        for name, _, _, _, offset, size in found:
            start = found[names_index][4] + name
            if data[start : data.index(b"\0", start)] == b".note.dlopen":
                optional += read_notes(data[offset : offset + size])
    return Program(
        needed=[text(value) for tag, value in entries if tag == DT_NEEDED],
        search=[part for tag, value in entries if tag in {DT_RPATH, DT_RUNPATH} for part in text(value).split(":")],
        interpreter=interpreter,
        optional=optional,
    )


def read_notes(data: bytes) -> list[str]:
    """Return the libraries of the notes that an initrd wants (systemd's ELF_DLOPEN_METADATA.md)."""
    found: list[str] = []
    at = 0
    while at < len(data):
        name_size, size, _ = struct.unpack_from("<III", data, at)
        at += 12 + (name_size + 3) // 4 * 4
        for note in json.loads(data[at : at + size].rstrip(b"\0")):
            if note.get("priority") in {"required", "recommended"} or note.get("feature") in WANTED:
                found += note["soname"]
        at += (size + 3) // 4 * 4
    return found


class Initrd:
    """The directory `root` that is filled, and what is still to be copied."""

    def __init__(self, root: str, contents: list[dict[str, str]]) -> None:
        self.root = root
        self.seen: set[str] = set()
        self.queue: list[str] = []
        sources = {entry["source"] for entry in contents}
        self.whole = {os.fspath(Path(source).resolve()) for source in sources if Path(source).is_dir()} - LINKED
        for entry in contents:
            self.start(entry["source"], entry.get("target"))

    def inside(self, path: str) -> Path:
        """Return where `path` is to be."""
        return Path(self.root + path)

    def start(self, source: str, target: str | None) -> None:
        """Take an entry of the contents."""
        if not os.path.lexists(source):
            say(f"{source} does not exist")
            return
        self.add(source)
        if target:
            place = self.inside(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                say(f"{target} is there already")
            else:
                place.symlink_to(source)

    def add(self, path: str) -> None:
        """Queue a path that was not seen yet, by its name in the tree."""
        path = os.path.normpath(path)
        for prefix, new in PREFIXES:
            if path.startswith(prefix):
                path = new + path.removeprefix(prefix)
        if path not in self.seen:
            self.seen.add(path)
            self.queue.append(path)

    def add_library(self, name: str, search: list[str], origin: str, *, optional: bool = False) -> None:
        """Queue a library from the first place that has it."""
        for place in [*(part.replace("$ORIGIN", origin) for part in search), MULTIARCH, f"{MULTIARCH}/systemd"]:
            directory = f"{TREE}/{place.removeprefix('/usr/')}" if place.startswith("/usr/") else place
            if Path(directory, name).exists():
                self.add(f"{directory}/{name}")
                return
        if not optional:
            say(f"no library {name}")

    def make_parents(self, path: str) -> bool:
        """Make the directories above `path`; return False when a link among them leads elsewhere."""
        at = ""
        for part in path.split("/")[1:-1]:
            parent, at = at, f"{at}/{part}"
            if Path(at).is_symlink():
                self.add(at)
                self.add(os.path.join(parent, os.readlink(at)) + path[len(at) :])  # noqa: PTH115, PTH118
                return False
            self.inside(at).mkdir(parents=True, exist_ok=True)
        return True

    def copy(self, path: str) -> None:
        """Copy one path, and queue what it needs."""
        if not self.make_parents(path):
            return
        source = Path(path)
        if source.is_symlink():
            target = os.fspath(source.readlink())
            if not os.path.lexists(self.inside(path)):
                self.inside(path).symlink_to(target)
            full = os.fspath(source.parent / target)
            if target != "/dev/null" and not target.startswith("/run/") and os.path.lexists(full):
                self.add(full)
        elif source.is_dir():
            self.inside(path).mkdir(parents=True, exist_ok=True)
            of_whole = any(path == one or path.startswith(f"{one}/") for one in self.whole)
            if path not in LINKED and (of_whole or not path.startswith(TREE)):
                for child in source.iterdir():
                    self.add(os.fspath(child))
        elif not source.exists():
            say(f"{path} does not exist")
        else:
            if not os.path.lexists(self.inside(path)):
                shutil.copy2(source, self.inside(path))
                self.inside(path).chmod(source.stat().st_mode | 0o200)
            self.follow(source.read_bytes(), os.fspath(source.parent))

    def follow(self, data: bytes, origin: str) -> None:
        """Queue what a script or a program needs."""
        if data[:2] == b"#!":
            self.add(data[2 : data.index(b"\n")].split()[0].decode())
        elif (program := read_elf(data)) is not None:
            if program.interpreter:
                self.add(program.interpreter)
            for name in program.needed:
                self.add_library(name, program.search, origin)
            for name in program.optional:
                self.add_library(name, program.search, origin, optional=True)


def main(contents: Path, root: str) -> None:
    """Fill `root` with the contents and all that they need."""
    initrd = Initrd(root, json.loads(contents.read_text(encoding="utf-8")))
    while initrd.queue:
        initrd.copy(initrd.queue.pop())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
