"""GRUB's configuration, followed as far as it names a kernel, an initrd and a command line (GRUB manual 2.12).

It is a script. A condition that can be told is followed one way; of any other all ways are followed, and what they
leave in different states is not known from there on. What is not known stays in the text with its `$`.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from vmtests.image.grubwords import LITERAL, arguments, commands, filled_in, holds, put_in
from vmtests.sizes import whole

PLACES = ("/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg")
"""Where distributions keep it, on root or on a boot partition."""

ENTRIES = ("/loader/entries", "/boot/loader/entries")
"""Where `blscfg` looks for entries of the Boot Loader Specification, on the device that is $root."""

_NAMES = 250  # of variables
_DEPTH = 16  # of menus in each other, and of what is open in one
_SEARCH = {"u": "fs-uuid", "l": "label", "f": "file", "s": "set", "h": "hint", "n": "no-floppy"}
_HINTS = {f"hint-{firmware}" for firmware in ("ieee1275", "bios", "baremetal", "efi", "arc")}
_KINDS = {"fs-uuid": "uuid", "fs_uuid": "uuid", "label": "label", "fs_label": "label", "file": "file"}
_FEATURES = (
    "chainloader_bpb", "ntldr", "platform_search_hint", "default_font_path", "all_video_module", "menuentry_id",
    "menuentry_options", "200_final", "nativedisk_cmd", "timeout_style",
)  # fmt: skip
_OWN = {**{f"feature_{name}": "y" for name in _FEATURES}, "menuentry_id_option": "--id"}
"""What GRUB sets on any machine (grub-core/normal/main.c)."""

# What else GRUB itself sets, or the firmware and its devices: nothing is said of them.
_UNKNOWN = re.compile(
    r"root|prefix|cmdpath|config_\w+|feature_\w+|grub_\w+|gfx\w*|net_\w+|pxe_\w+|smbios\w*|shim_lock|lockdown"
    r"|package_version|check_signatures|biosnum|chosen|\d+"
)
_ANYTHING = "\0anything"  # a variable that is there where any other may have been set
_HERE = "$<here>"
_LINUX = {"linux", "linuxefi", "linux16"}
_INITRD = {"initrd", "initrdefi", "initrd16"}
_OF_ENTRY = frozenset({"class", "users", "hotkey", "source", "id"})
_KEYWORDS = frozenset({"if", "elif", "else", "then", "fi", "while", "until", "do", "done"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What `search` looks for: a file system by its `uuid` or `label`, or the one that has a `file`.

    A `device` is what a script names itself, as `hd0,gpt2`.
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """An entry of the menu; paths are on `device`. A submenu has `entries` and nothing that is started.

    `device` is None where that is where the menu is. `scattered` says that an initrd is on another one than the
    kernel, and `certain` that the entry is in the menu whatever is not known.
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
    scattered: bool = False
    certain: bool = True


@dataclass(slots=True)
class Menu:
    """What a configuration shows; `default` is as GRUB takes it. `device` is what $root is when it ends.

    `onward` are the configurations that it goes on to, by device and path; `waits` says for what of somebody it waits
    for ever, nothing where it does not.
    """

    entries: list[MenuEntry] = field(default_factory=list)
    default: str = ""
    fallback: str = ""
    device: Device | None = None
    onward: list[tuple[Device | None, str]] = field(default_factory=list)
    waits: str = ""

    @property
    def chosen(self) -> MenuEntry | None:
        """The entry that is started when nobody presses a key; None where there is none, or that is not known."""
        return self.named(self.default)

    def named(self, name: str) -> MenuEntry | None:
        """Return the entry that GRUB takes a name, or a number, for."""
        return _choose(self.entries, re.split(r"(?<!>)>(?!>)", name))


class Around(Protocol):
    """What a script finds on the disk; `device` is None where the script is."""

    def look(self, operator: str, device: Device | None, path: str) -> bool | None:
        """Return whether a file is as one of the operators of `test` asks for; None where that is not known."""

    def environment(self, device: Device | None, path: str) -> Mapping[str, str] | None:
        """Return the variables of a file; None where it cannot be read here."""

    def entries(self, device: Device | None, variables: Mapping[str, str]) -> Sequence[MenuEntry]:
        """Return what `blscfg` puts into the menu, told the variables."""


def parse(
    text: str,
    variables: Mapping[str, str] | None = None,
    *,
    own: Mapping[str, str] | None = None,
    place: str = "",
    root: Device | None = None,
    around: Around | None = None,
) -> Menu:
    """Return the menu of a configuration; `variables` are those of the environment block beside it.

    `own` are variables that GRUB itself sets on this machine; `place` is the directory of the configuration and its
    environment, where that is known; `root` what $root is when it begins, None where the configuration is.
    """
    menu = Menu()
    script = _Script(variables or {}, {**_OWN, **(own or {})}, place, around)
    if root is not None:
        script.found("root", root)
    script.run(commands(text), menu, 0)
    menu.default, menu.fallback, menu.device = script.value("default"), script.value("fallback"), script.root
    chosen = menu.chosen
    timeout, superusers = script.value("timeout"), script.value("superusers")
    if superusers and "$" not in superusers and chosen is not None and not chosen.open_to_all:
        menu.waits = f"a password: `superusers` is set, and {chosen.title!r} is not --unrestricted"
    elif timeout.startswith("-"):
        menu.waits = f"a key for ever: `timeout` is {timeout}"
    return menu


def environment(block: str) -> dict[str, str]:
    """Return the variables of an environment block, the file grubenv."""
    pairs = (line.partition("=") for line in block.splitlines() if not line.startswith("#"))
    return dict([(key, value) for key, equals, value in pairs if equals][:_NAMES])


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in; one that nothing is known of stays as it is written."""

    def known(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return variables.get(name, match[0] if _UNKNOWN.fullmatch(name) else "")

    return put_in(text, known)


def split(path: str) -> tuple[str, str]:
    """Return the device that a path names (`hd0,gpt2`, `$root`), empty where it names none, and the rest."""
    match = re.match(r"\(([^)]*)\)(.*)$", path, re.DOTALL)
    return (match[1], match[2]) if match else ("", path)


def partition(device: str) -> int | None:
    """Return the number of the partition of the first disk that a device is; None where it is something else."""
    match = re.fullmatch(r"(?:hd0|ahci0|virtio0),(?:gpt|msdos)?([0-9]{1,4})", device)
    return int(match[1]) if match else None


def _choose(entries: Sequence[MenuEntry], default: list[str]) -> MenuEntry | None:
    name, *rest = default
    name = name.replace(">>", ">")
    at = next((at for at, entry in enumerate(entries) if name and name in (entry.identifier, entry.title)), None)
    unclear = "$" in name
    if at is None:
        # grub-core/normal/menu.c, get_entry_number(): a number, and the first one where there is none such.
        number = whole(name[:6])
        at = number if number is not None and number < len(entries) else 0
        unclear |= any(not entry.certain for entry in entries[: at + 1])
        unclear |= bool(name) and number is None and any("$" in entry.identifier + entry.title for entry in entries)
    if not entries or unclear or not entries[at].certain:
        return None
    found = entries[at]
    return _choose(found.entries, rest or [""]) if found.submenu else found


@dataclass(slots=True, kw_only=True)
class _Open:
    """An `if` or a loop that is not closed: of what stands inside, whether it is run, and whether for certain.

    Between `if` and `then` its condition is run: `told` is what the last command says. `before` is what the variables
    were when a branch began, `after` what they may be when all is closed.
    """

    outer: tuple[bool, bool]
    live: bool
    sure: bool
    before: dict[str, str]
    loop: bool = False
    told: bool | None = None
    condition: bool = True
    taken: bool = False  # one of the branches is run for certain
    doubtful: bool = False  # one of them may be
    after: dict[str, str] | None = None


def _either(one: dict[str, str] | None, other: dict[str, str]) -> dict[str, str]:
    """Return the variables where it is not known which of two sets they are."""
    if one is None or one == other:
        return other
    return {**one, **other, **{name: f"${name}" for name, _ in one.items() ^ other.items()}}


def _body(script: Iterator[list[str]]) -> list[list[str]]:
    """Return the commands up to the brace that ends a block."""
    found, depth = [], 1
    for words in script:
        depth += {"{": 1, "}": -1}.get(words[0], 0)
        if not depth:
            break
        found.append(words)
    return found


class _Script:
    """Runs commands as far as they tell something of the menu."""

    def __init__(self, block: Mapping[str, str], own: Mapping[str, str], place: str, around: Around | None) -> None:
        self._block = block
        here = dict.fromkeys(("prefix", "config_directory"), f"({_HERE}){place}") if place else {}
        self._own = {**own, **here}
        self._around = around
        self._listed = False  # the entries of `blscfg`; more of the same are not chosen
        self._variables: dict[str, str] = {}
        # What variables have that `search` sets: like all that is not known, something with a `$`.
        self._devices: dict[str, Device | None] = {_HERE: None}

    def value(self, name: str) -> str:
        """Return what a variable has: nothing where it is not set, something with a `$` where that is not known."""
        if name in self._variables:
            return self._variables[name]
        untold = _ANYTHING in self._variables or _UNKNOWN.fullmatch(name)
        return self._own.get(name, f"${name}" if untold else "")

    @property
    def root(self) -> Device | None:
        """The device of paths that name none; None where the script is."""
        return self._place("")[0]

    def found(self, name: str, device: Device) -> None:
        """Set a variable to what `search` finds."""
        token = f"$<{device.kind} {device.value}>"
        self._devices[token] = device
        self._set(name, token)

    def run(self, script: Iterator[list[str]], menu: Menu, depth: int) -> None:
        """Run to the brace that ends the block, or to the end; then the entries, as they are when one is chosen."""
        opened = [_Open(outer=(True, True), live=True, sure=True, before={})]
        bodies: list[tuple[int, list[list[str]]]] = []
        for line in script:
            leading = len(list(itertools.takewhile(_KEYWORDS.__contains__, line)))
            for word in line[:leading]:
                self._keyword(word, opened)
            words, top = line[leading:], opened[-1]
            if not words:
                continue
            if words[0] == "}":
                break
            if words[0] == "{":
                _body(script)
            elif words[0] in ("menuentry", "submenu", "function"):
                body = _body(script) if next(script, [""])[0] == "{" else []
                if top.live and words[0] != "function" and depth <= _DEPTH:
                    bodies.append((len(menu.entries), body))
                    menu.entries.append(self._entry(words, certain=top.sure))
            elif words[0] == "for":
                self._keyword("for", opened)
                if top.live and len(words) > 1:
                    self._set(words[1], f"${words[1]}")
            elif top.live:
                top.told = self._command(words, menu, certain=top.sure)
        while len(opened) > 1:
            self._keyword("fi", opened)
        before = self._variables
        for at, body in bodies:
            self._variables = {**before, "\0kernel": "", "\0options": "", "\0initrds": ""}
            inner = Menu()
            self.run(iter(body), inner, depth + 1)
            menu.entries[at] = self._filled(menu.entries[at], inner)
        self._variables = before

    def _keyword(self, word: str, opened: list[_Open]) -> None:
        top = opened[-1]
        if word in ("if", "while", "until", "for"):
            outer = (top.live and len(opened) <= _DEPTH, top.sure)
            loop = word != "if"
            opened.append(_Open(outer=outer, live=outer[0], sure=top.sure, before=self._variables, loop=loop))
            return
        if len(opened) == 1:
            return
        if word not in ("then", "do"):
            if top.live and not top.condition:
                top.after = _either(top.after, self._variables)
                self._variables = top.before
            if word in ("fi", "done"):
                self._variables = top.after if top.taken and top.after else _either(top.after, self._variables)
                opened.pop()
                return
            top.condition, top.told, top.live = True, True if word == "else" else None, top.outer[0] and not top.taken
        if word != "elif" and top.condition:
            told = None if top.loop else top.told
            top.condition, top.live = False, top.live and told is not False
            certain = told is True and not top.doubtful
            top.sure = top.outer[1] and certain
            if top.live and not certain:
                top.before, self._variables = self._variables, dict(self._variables)
            top.taken |= told is True
            top.doubtful |= told is None

    def _entry(self, words: list[str], *, certain: bool) -> MenuEntry:
        options, others = arguments(self._words(words[1:]), _OF_ENTRY, {})
        return MenuEntry(
            title=others[0].replace(LITERAL, "$") if others else "",
            identifier=options.get("id", [""])[-1].replace(LITERAL, "$"),
            submenu=words[0] == "submenu",
            open_to_all="unrestricted" in options,
            certain=certain,
        )

    def _filled(self, entry: MenuEntry, inner: Menu) -> MenuEntry:
        """Return an entry with what its commands have set."""
        device, kernel = self._place(self.value("\0kernel"))
        initrds = [self._place(name) for name in self.value("\0initrds").split("\n") if name]
        return replace(
            entry,
            kernel=kernel,
            options=self.value("\0options").replace(LITERAL, "$"),
            initrds=tuple(name for _, name in initrds),
            device=device,
            entries=tuple(inner.entries),
            scattered=any(other != device for other, _ in initrds),
        )

    def _command(self, words: list[str], menu: Menu, *, certain: bool) -> bool | None:
        """Run a command; return what it says as a condition, None where that is not known."""
        found = self._words(words)
        marks = len(list(itertools.takewhile("!".__eq__, found)))
        verb, *rest = found[marks:] or [""]
        negated = marks % 2 == 1
        if verb in ("[", "test"):
            told = holds(rest[:-1] if verb == "[" and rest[-1:] == ["]"] else rest, self._look)
            return told if told is None else told is not negated
        if verb in ("true", "false"):
            return (verb == "true") is not negated
        if verb in ("set", "export") or "=" in verb:
            for pair in rest if verb in ("set", "export") else [verb]:
                name, equals, value = pair.partition("=")
                if equals:
                    self._set(name, value)
        elif verb == "unset":
            for name in rest:
                self._set(name, "")
        elif verb == "load_env":
            self._load(rest)
        elif verb == "blscfg":
            self._entries(menu, certain=certain)
        elif verb == "search" or verb.startswith("search."):
            self._search(verb, rest)
        elif verb in ("configfile", "source", ".", "normal") and rest:
            menu.onward.append(self._place(rest[0]))
        elif verb in _LINUX and rest:
            self._variables |= {"\0kernel": self._placed(rest[0]), "\0options": " ".join(rest[1:])}
        elif verb in _INITRD:
            places = (self._placed(re.sub(r"^newc:[^:]*:", "", word)) for word in rest)
            self._variables["\0initrds"] = "\n".join(places)
        elif verb == "eval":
            self._forget_all()
        else:
            # probe, regexp, read: what they find out is not known.
            names = rest if verb == "read" else arguments(rest, {"set"}, _SEARCH)[0].get("set", [])
            for name in (told.rpartition(":")[2] for told in names):
                self._set(name, f"${name}")
        return None

    def _entries(self, menu: Menu, *, certain: bool) -> None:
        if self._around is not None and not self._listed:
            self._listed = True
            known = {name: value.replace(LITERAL, "$") for name, value in {**self._block, **self._variables}.items()}
            found = self._around.entries(self.root, known)
            menu.entries += [replace(entry, device=self.root, certain=certain) for entry in found]

    def _load(self, words: list[str]) -> None:
        """Set what an environment block has, or those variables of it that are named."""
        options, names = arguments(words, {"file"}, {"f": "file", "s": "skip-sig"})
        block: Mapping[str, str] | None = self._block
        if told := options.get("file", [""])[-1]:
            where = self._place(told if told.startswith(("(", "/")) else f"{self.value('prefix')}/{told}")
            block = None if self._around is None or "$" in where[1] else self._around.environment(*where)
        if block is not None:
            for name, value in block.items():
                if not names or name in names:
                    self._set(name, value.replace("$", LITERAL))
        elif names:
            for name in names:
                self._set(name, f"${name}")
        else:
            self._forget_all()

    def _search(self, verb: str, words: list[str]) -> None:
        options, values = arguments(words, {"set", "hint", *_HINTS}, _SEARCH)
        kinds = [_KINDS[name] for name in (verb.partition(".")[2], *options) if name in _KINDS]
        if verb == "search":
            name = options.get("set", [None])[-1]
            if name is not None and not values:
                name, values = "root", [name]  # as before GRUB 1.99, where `--set` took no word
        else:
            name = values[1] if len(values) > 1 else "root"
        if name is not None and values:
            value = values[0].replace(LITERAL, "")
            self.found(name or "root", Device(kind=kinds[0] if kinds else "uuid", value=value))

    def _set(self, name: str, value: str) -> None:
        if name == "root":
            value = value.removeprefix("(").removesuffix(")")
        if name in self._variables or len(self._variables) < _NAMES:
            self._variables[name] = value

    def _forget_all(self) -> None:
        self._variables = {name: f"${name}" for name in self._variables} | {_ANYTHING: ""}

    def _words(self, words: list[str]) -> list[str]:
        return filled_in(words, self.value)

    def _placed(self, path: str) -> str:
        """Return a path with the device that it is on now."""
        return path if path.startswith("(") else f"({self.value('root')}){path}"

    def _place(self, path: str) -> tuple[Device | None, str]:
        """Return the device of a path, None where the script is, and the rest."""
        said, rest = split(path)
        said = said or self.value("root")
        rest = rest.replace(LITERAL, "$")
        if said in self._devices or (said == "$root" and not {"root", _ANYTHING} & self._variables.keys()):
            return self._devices.get(said), rest
        return Device(kind="device", value=said), rest

    def _look(self, operator: str, path: str) -> bool | None:
        device, name = self._place(path)
        return None if self._around is None or "$" in name else self._around.look(operator, device, name)
