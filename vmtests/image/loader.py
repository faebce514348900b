"""Which entry a boot loader starts: systemd-boot in its own order (src/boot and src/fundamental of systemd 257).

Boot Loader Specification: https://uapi-group.org/specifications/specs/boot_loader_specification/
"""

import fnmatch
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vmtests.sizes import whole

_TRIES = re.compile(r"\+(\d+)(?:-(\d+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the Boot Loader Specification; paths are as written.

    `id` is the file's name without boot counters, `path` where it is on its partition, `left` the tries that are left,
    None without a counter. A unified kernel image (type #2) has `unified` and no kernel of its own;
    `by_uki` says that a type #1 entry names it by `uki`, which systemd-boot knows from 258 on.
    """

    id: str
    path: str
    title: str = ""
    kernel: str | None = None
    unified: str | None = None
    by_uki: bool = False
    initrds: tuple[str, ...] = ()
    options: str = ""
    version: str = ""
    machine_id: str = ""
    sort_key: str = ""
    architecture: str = ""
    devicetree: str = ""
    left: int | None = None
    volume: int = 0


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of an entry or of loader.conf: one a line, `#` for comments.

    A value may be in quotes (src/boot/efi-string.c, line_get_key_value()).
    """
    for line in text.splitlines():
        key, *rest = line.split(None, 1) or ["#"]
        if not key.startswith("#"):
            value = rest[0].strip() if rest else ""
            yield key, value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[0] == value[-1] else value


def parse(text: str, path: str = "") -> Entry:
    """Read a type #1 entry; the last of a key wins but for lists."""
    values: dict[str, list[str]] = {}
    for key, value in pairs(text):
        values.setdefault(key, []).append(value)

    def last(key: str) -> str:
        return values.get(key, [""])[-1]

    name, left = counted(path.rpartition("/")[2])
    return Entry(
        id=name,
        path=path,
        title=last("title"),
        kernel=last("linux") or None,
        unified=last("efi") or last("uki") or None,
        by_uki=bool(last("uki")) and not (last("efi") or last("linux")),
        initrds=tuple(values.get("initrd", ())),
        options=" ".join(values.get("options", ())),
        version=last("version"),
        machine_id=last("machine-id"),
        sort_key=last("sort-key"),
        architecture=last("architecture"),
        devicetree=last("devicetree"),
        left=left,
    )


def counted(name: str) -> tuple[str, int | None]:
    """Return a file's name without its boot counter, and the tries that are left."""
    stem, dot, suffix = name.rpartition(".")
    if (match := _TRIES.search(stem)) is None:
        return name, None
    return f"{stem[: match.start()]}{dot}{suffix}", int(match[1])


def order(entries: list[Entry]) -> list[Entry]:
    """Return the entries as the menu has them; the first one is started unless a default is set."""
    return sorted(entries, key=functools.cmp_to_key(_compare))


def chosen(entries: list[Entry], pattern: str) -> Entry | None:
    """Return the entry that is started: what `default` of loader.conf names, a glob, else the first."""
    ordered = order(entries)
    if pattern and not pattern.startswith("@"):
        for entry in ordered:
            if fnmatch.fnmatchcase(entry.id.lower(), pattern.lower()):
                return entry
    return ordered[0] if ordered else None


def _cmp(a: str | int, b: str | int) -> int:
    if isinstance(a, str) and isinstance(b, str):
        return (a > b) - (a < b)
    return int(a) - int(b)


def _compare(a: Entry, b: Entry) -> int:
    if result := _cmp(a.left == 0, b.left == 0):
        return result  # none left: last
    if result := _cmp(not a.sort_key, not b.sort_key):
        return result
    if a.sort_key and b.sort_key:
        result = (
            _cmp(a.sort_key, b.sort_key) or _cmp(a.machine_id, b.machine_id) or -compare_versions(a.version, b.version)
        )
        if result:
            return result
    if result := -compare_versions(a.id.lower(), b.id.lower()):
        return result
    return 0 if a.left is None or b.left is None else -_cmp(a.left, b.left)


def compare_versions(a: str, b: str) -> int:
    """Compare as strverscmp_improved() does: negative where `a` is older (UAPI version format specification)."""
    valid = re.compile(r"[A-Za-z0-9~^.-]")
    one, two = 0, 0
    while True:
        while one < len(a) and not valid.match(a[one]):
            one += 1
        while two < len(b) and not valid.match(b[two]):
            two += 1
        left, right = a[one : one + 1], b[two : two + 1]
        if left == "~" or right == "~":
            if result := _cmp(left != "~", right != "~"):
                return result
            one, two = one + 1, two + 1
            left, right = a[one : one + 1], b[two : two + 1]
        if not left or not right:
            return _cmp(bool(left), bool(right))
        for sign in "-^.":
            if left == sign or right == sign:
                if result := _cmp(left != sign, right != sign):
                    return result
                one, two = one + 1, two + 1
                left, right = a[one : one + 1], b[two : two + 1]
        digits = left.isdigit() or right.isdigit()
        pattern = re.compile(r"[0-9]*" if digits else r"[A-Za-z]*")
        head, tail = pattern.match(a, one), pattern.match(b, two)
        assert head is not None
        assert tail is not None
        if result := _segments(head[0], tail[0], digits=digits):
            return result
        one, two = head.end(), tail.end()


def _segments(a: str, b: str, *, digits: bool) -> int:
    if digits:
        a_number, b_number = a.lstrip("0"), b.lstrip("0")
        return _cmp(bool(a), bool(b)) or _cmp(len(a_number), len(b_number)) or _cmp(a_number, b_number)
    shared = min(len(a), len(b))
    return _cmp(a[:shared], b[:shared]) or _cmp(len(a), len(b))


def syslinux(text: str) -> Entry | None:
    """Return the label that a configuration of SYSLINUX starts; None where it has none."""
    default, marked, labels = "", "", dict[str, dict[str, str]]()
    current: dict[str, str] = {}
    name = ""
    common = ""
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        key, value = words[0].lower(), words[1].strip() if len(words) > 1 else ""
        if key == "default":
            default = value
        elif key == "label":
            name, current = value, labels.setdefault(value, {})
        elif key == "menu" and value.lower() == "default" and name:
            marked = name
        elif key == "append" and not name:
            common = value
        elif name and key in ("linux", "kernel", "append", "initrd"):
            current["kernel" if key == "linux" else key] = value
    chosen = default if default in labels else marked or next(iter(labels), "")
    if not chosen:
        return None
    label = labels[chosen]
    own = label.get("append", common)
    options = "" if own == "-" else own
    given = [word.partition("=")[2] for word in options.split() if word.startswith("initrd=")]
    initrds = (label.get("initrd") or ",".join(given)).split(",")
    rest = " ".join(word for word in options.split() if not word.startswith("initrd="))
    return Entry(
        id=chosen, path="", title=chosen, kernel=label.get("kernel", chosen), options=rest,
        initrds=tuple(name for name in initrds if name),
    )  # fmt: skip


def limine(text: str) -> Entry | None:
    """Return the entry for Linux that a configuration of Limine starts; None where that is something else."""
    number, entries = 1, list[tuple[str, dict[str, list[str]]]]()
    for line in text.splitlines():
        if match := re.match(r"\s*(/+)\+?\s*(.*)$", line):
            entries.append((match[2].strip(), {}))
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or line.lstrip().startswith("#"):
            continue
        if not entries:
            chosen = whole(value) if key.lower() == "default_entry" else None
            number = number if chosen is None else chosen
        else:
            entries[-1][1].setdefault(key.lower(), []).append(value)
    if not 0 < number <= len(entries):
        return None
    title, said = entries[number - 1]
    kernel = said.get("path") or said.get("kernel_path")
    if said.get("protocol", [""])[0].lower() != "linux" or not kernel:
        return None
    options = (said.get("cmdline") or said.get("kernel_cmdline") or [""])[0]
    return Entry(
        id=title, path="", title=title, kernel=kernel[0], initrds=tuple(said.get("module_path", ())), options=options
    )
