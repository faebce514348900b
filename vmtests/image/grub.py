"""GRUB's configuration, followed as far as it names a kernel, an initrd and a command line (GRUB manual 2.12).

It is a script. Variables that it sets, or that its environment block has, are put in; a condition that can be told is
followed one way, any other both ways. What is not known stays in the text with its `$`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmtests.sizes import whole

PLACES = ("/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg")
"""Where distributions keep it, on root or on a boot partition."""

ENTRIES = ("/loader/entries", "/boot/loader/entries")
"""Where `blscfg` looks for entries of the Boot Loader Specification, on the device that is $root."""

_COMMANDS = 40_000  # that are looked at
_LINE = 4096  # characters that variables put into a word; a kernel takes 2048 (COMMAND_LINE_SIZE)
_NAMES = 1000  # of variables
_DEPTH = 16  # of menus in each other
_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)"|((?:\$\{\w+\}|[^\s'"\\;{}])+)""", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SEARCH = {"--fs-uuid": "uuid", "-u": "uuid", "--label": "label", "-l": "label", "--file": "file", "-f": "file"}
# What GRUB itself sets, or the firmware and its devices: nothing is said of them.
_UNKNOWN = re.compile(r"root|prefix|cmdpath|boot|dev|gfx\w*|net_\w+|smbios\w*|menuentry_id_option|\d+")
_TEST = {"[", "test"}
_LINUX = {"linux", "linuxefi", "linux16"}
_INITRD = {"initrd", "initrdefi", "initrd16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What `search` looks for: a file system by its `uuid` or `label`, or the one that has a `file`.

    A `device` is what a script has set $root to, with or without brackets.
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """An entry of the menu; paths are as written. A submenu has `entries` and nothing that is started.

    `device` is where $root is looked for last; None where that is where the menu is.
    """

    title: str
    identifier: str = ""
    kernel: str = ""
    options: str = ""
    initrds: tuple[str, ...] = ()
    device: Device | None = None
    entries: tuple["MenuEntry", ...] = ()
    submenu: bool = False
    open_to_all: bool = False


@dataclass(slots=True)
class Menu:
    """What a configuration shows; `default` is as GRUB takes it. `device` is what $root is when it ends.

    `onward` are the configurations that it goes on to, as written but for `$prefix`; `waits` says for what of
    somebody it waits for ever, nothing where it does not.
    """

    entries: list[MenuEntry] = field(default_factory=list)
    default: str = ""
    fallback: str = ""
    device: Device | None = None
    onward: list[str] = field(default_factory=list)
    waits: str = ""

    @property
    def chosen(self) -> MenuEntry | None:
        """The entry that is started when nobody presses a key; None in an empty menu."""
        return self.named(self.default)

    def named(self, name: str) -> MenuEntry | None:
        """Return the entry that GRUB takes a name, or a number, for."""
        return _choose(self.entries, re.split(r"(?<!>)>(?!>)", name))


Entries = Callable[[Mapping[str, str]], Sequence[MenuEntry]]
"""Gives what `blscfg` puts into the menu, told the variables."""


def parse(text: str, variables: Mapping[str, str] | None = None, entries: Entries | None = None) -> Menu:
    """Return the menu of a configuration; `variables` are those of its environment block."""
    menu = Menu()
    script = _Script(dict(variables or {}), entries)
    script.run(_commands(text), menu, 0)
    menu.default, menu.fallback = script.value("default"), script.value("fallback")
    chosen = menu.chosen
    if script.value("superusers") and chosen is not None and not chosen.open_to_all:
        menu.waits = f"a password: `superusers` is set, and {chosen.title!r} is not --unrestricted"
    elif script.value("timeout").startswith("-"):
        menu.waits = f"a key for ever: `timeout` is {script.value('timeout')}"
    return menu


def environment(block: str) -> dict[str, str]:
    """Return the variables of an environment block, the file grubenv."""
    pairs = (line.partition("=") for line in block.splitlines() if not line.startswith("#"))
    return {key: value for key, equals, value in pairs if equals}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in; one that nothing is known of stays as it is written."""

    def known(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in variables:
            return variables[name]
        return match[0] if _UNKNOWN.fullmatch(name) else ""

    return _put_in(text, known)


def _put_in(text: str, value: Callable[[re.Match[str]], str]) -> str:
    """Put the values of variables in, as long as a kernel could take what comes of it: each may hold others twice."""
    left = _LINE

    def put(match: re.Match[str]) -> str:
        nonlocal left
        said = value(match)
        left -= len(said)
        return said if left >= 0 else ""

    return _VARIABLE.sub(put, text)


def split(path: str) -> tuple[str, str]:
    """Return the device that a path names (`hd0,gpt2`, `$root`), empty where it names none, and the rest."""
    match = re.match(r"\(([^)]*)\)(.*)$", path, re.DOTALL)
    return (match[1], match[2]) if match else ("", path)


def partition(device: str) -> int | None:
    """Return the number of the partition of the first disk that a device is; None where it is something else."""
    match = re.fullmatch(r"\(?(?:hd0|ahci0|virtio0),(?:gpt|msdos)?([0-9]{1,4})\)?", device)
    return int(match[1]) if match else None


def _choose(entries: Sequence[MenuEntry], default: list[str]) -> MenuEntry | None:
    if not entries:
        return None
    name, *rest = default
    name = name.replace(">>", ">")
    found = next((entry for entry in entries if name and name in (entry.identifier, entry.title)), None)
    if found is None:
        # grub-core/normal/menu.c, get_entry_number(): a number, and the first one where there is none such.
        number = whole(name[:6]) or 0
        found = entries[number if number < len(entries) else 0]
    return _choose(found.entries, rest or [""]) if found.submenu else found


def _commands(text: str) -> Iterator[list[str]]:
    """Yield commands as their words, a brace as a command of its own; quotes are gone, but for what tells a variable.

    In single quotes a `$` is none: it comes as `\\0`, which is put right where words are used.
    """
    text = text.replace("\\\n", "")
    for number, line in enumerate(text.splitlines()):
        if number > _COMMANDS:
            return
        words: list[str] = []
        at, word = 0, None
        while at < len(line):
            if line[at] == "#" and word is None:
                break
            if match := _PIECE.match(line, at):
                escaped, single, double, plain = match.groups()
                if single is not None:
                    piece = single.replace("$", "\0")
                elif double is not None:
                    piece = re.sub(r'\\([\\"$])', lambda m: "\0" if m[1] == "$" else m[1], double)
                else:
                    piece = escaped if escaped is not None else plain
                word = (word or "") + piece
                at = match.end()
                continue
            if word is not None:
                words.append(word)
                word = None
            if line[at] in ";{}":
                if words:
                    yield words
                words = []
                if line[at] != ";":
                    yield [line[at]]
            at += 1
        if word is not None:
            words.append(word)
        if words:
            yield words


class _Script:
    """Runs commands as far as they tell something of the menu."""

    def __init__(self, variables: dict[str, str], entries: Entries | None) -> None:
        self._block = variables
        self._variables: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._entries = entries

    def value(self, name: str) -> str:
        return self._variables.get(name, "")

    def run(self, commands: Iterator[list[str]], menu: Menu, depth: int) -> None:
        """Run to the brace that ends the block, or to the end."""
        live = [True]  # of each `if` that is open: whether its branch is followed
        taken = [False]  # whether one of its branches was followed for certain
        for words in commands:
            verb, rest = words[0], words[1:]
            while verb in ("then", "do", "else") and rest and verb != "else":
                verb, rest = rest[0], rest[1:]
            if verb in ("if", "elif"):
                told = self._told(rest) if live[-1] or verb == "elif" else False
                if verb == "if":
                    live.append(live[-1] and told is not False)
                    taken.append(told is True)
                elif len(live) > 1:
                    live[-1] = live[-2] and told is not False and not taken[-1]
                    taken[-1] |= told is True
            elif verb == "else" and len(live) > 1:
                live[-1] = live[-2] and not taken[-1]
                if rest and live[-1]:
                    self._command(rest[0], rest[1:], menu)
            elif verb == "fi" and len(live) > 1:
                live.pop()
                taken.pop()
            elif verb == "}":
                return
            elif verb == "{":
                self._skip(commands)
            elif verb in ("menuentry", "submenu", "function"):
                self._block_of(verb, rest, commands, menu, depth, live=live[-1])
            elif live[-1]:
                self._command(verb, rest, menu)

    def _skip(self, commands: Iterator[list[str]]) -> None:
        depth = 1
        for words in commands:
            depth += {"{": 1, "}": -1}.get(words[0], 0)
            if not depth:
                return

    def _block_of(
        self, verb: str, words: list[str], commands: Iterator[list[str]], menu: Menu, depth: int, *, live: bool
    ) -> None:
        if next(commands, [""])[0] != "{":
            return
        if verb == "function" or not live or depth > _DEPTH:
            self._skip(commands)
            return
        words = [self._words(word) for word in words]
        named = [at for at, word in enumerate(words) if word == "--id" or "menuentry_id_option" in word]
        identifier = words[named[0] + 1] if named and named[0] + 1 < len(words) else ""
        title = words[0] if words else ""
        before = dict(self._variables)
        inner = Menu(device=menu.device)
        self._variables |= {"\0kernel": "", "\0options": "", "\0initrds": ""}
        self.run(commands, inner, depth + 1)
        inside, self._variables = self._variables, before
        menu.entries.append(
            MenuEntry(
                title=title,
                identifier=identifier,
                kernel=inside.get("\0kernel", ""),
                options=inside.get("\0options", ""),
                initrds=tuple(inside.get("\0initrds", "").split("\n")) if inside.get("\0initrds") else (),
                device=inner.device,
                entries=tuple(inner.entries),
                submenu=verb == "submenu",
                open_to_all="--unrestricted" in words,
            )
        )

    def _command(self, verb: str, words: list[str], menu: Menu) -> None:
        words = [self._words(word) for word in words]
        if verb in _TEST or not words:
            if verb == "load_env":
                self._variables |= self._block
            if verb == "blscfg" and self._entries is not None:
                menu.entries += self._entries({**self._block, **self._variables})
            return
        if verb in ("set", "export") or "=" in verb:
            for pair in words if verb in ("set", "export") else [verb]:
                name, equals, value = pair.partition("=")
                if equals and name == "root":
                    menu.device = Device(kind="device", value=self._words(value))
                if equals and (name in self._variables or len(self._variables) < _NAMES):
                    self._variables[name] = value
                    self._unknown.discard(name)
        elif verb == "load_env":
            self._variables |= self._block
        elif verb == "search" or verb.startswith("search."):
            self._search(verb, words, menu)
        elif verb in ("configfile", "source", "."):
            place = words[0].replace("${prefix}", "$prefix")
            if self.value("prefix") or "$prefix" not in place:
                menu.onward.append(place.replace("$prefix", self.value("prefix")))
        elif verb in _LINUX:
            self._variables |= {"\0kernel": words[0], "\0options": " ".join(words[1:])}
        elif verb in _INITRD:
            self._variables["\0initrds"] = "\n".join(re.sub(r"^newc:[^:]*:", "", word) for word in words)
        else:
            for word in words:  # probe, regexp, read: what they find out is not known
                if match := re.match(r"--set=(?:\d+:)?(\w+)", word):
                    self._unknown.add(match[1])

    def _search(self, verb: str, words: list[str], menu: Menu) -> None:
        kind = {"search.fs_uuid": "uuid", "search.fs_label": "label", "search.file": "file"}.get(verb, "")
        name, values, at = "root" if not kind else "", [], 0
        while at < len(words):
            word = words[at]
            if word in _SEARCH:
                kind = _SEARCH[word]
            elif word.startswith("--set="):
                name = word.partition("=")[2]
            elif word in ("--set", "-s"):
                # The next word is its value, unless that is an option (grub-core/lib/arg.c).
                name, taken = "root", at + 1 < len(words) and not words[at + 1].startswith("-")
                if taken:
                    at += 1
                    name = words[at]
            elif word in ("-h", "--hint"):
                at += 1
            elif not word.startswith("-"):
                values.append(word)
            at += 1
        if not values and name not in ("", "root"):
            name, values = "root", [name]  # as before GRUB 1.99, where `--set` took no word
        if values and (not name or name in ("root", "dev")):
            menu.device = Device(kind=kind or "uuid", value=values[0])

    def _words(self, word: str) -> str:
        def put(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in self._variables and name not in self._unknown and not _UNKNOWN.fullmatch(name):
                return self._variables[name]
            return match[0] if name in self._unknown or _UNKNOWN.fullmatch(name) else ""

        return _put_in(word, put).replace("\0", "$")

    def _told(self, words: list[str]) -> bool | None:
        """Return whether a condition holds; None where that is not known here."""
        words = words[:-1] if words and words[-1] == "then" else words
        if not words or words[0] not in _TEST:
            return {"true": True, "false": False}.get(words[0] if len(words) == 1 else "")
        said = [self._words(word) for word in words[1:] if word != "]"]
        negated = said[:1] == ["!"]
        said = said[1:] if negated else said
        if any("$" in word for word in said) or any("feature_" in word or "grub_" in word for word in words):
            return None
        found: bool | None = None
        if len(said) <= 1 and not (said and said[0].startswith("-")):
            found = bool(said and said[0])
        elif len(said) == 3 and said[1] in ("=", "==", "!="):
            found = (said[0] == said[2]) is (said[1] != "!=")
        return found if found is None else found is not negated
