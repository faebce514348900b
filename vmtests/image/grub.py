"""GRUB's configuration, read as far as it names a kernel, an initrd and a command line (GRUB manual 2.12)."""

import itertools
import re
import shlex
from dataclasses import dataclass

PLACES = ("/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg")
"""Where distributions keep it, on root or on a boot partition."""

_LIMIT = 20_000  # lines


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """An entry of the menu; paths are as written, `device` is the UUID or label that `search` looks for."""

    title: str
    identifier: str
    kernel: str
    options: str
    initrds: tuple[str, ...]
    device: str


def parse(text: str) -> MenuEntry | None:
    """Return the entry that is started; None where the file has none, or scripts that are not followed."""
    default, tops = "0", []
    depth, kernel, options, device, title, identifier = 0, "", "", "", "", ""
    initrds: tuple[str, ...] = ()
    outer, inside = "", 0
    for line in text.splitlines()[:_LIMIT]:
        words = _words(line)
        if not words:
            continue
        verb = words[0]
        if verb == "set" and len(words) > 1 and words[1].startswith("default=") and not inside:
            value = words[1].partition("=")[2]
            default = default if "$" in value else value
        if verb == "search" and len(words) > 1:
            found = words[-1]
            device, outer = (found, outer) if inside else (device, found)
        if verb == "menuentry" and not inside:
            inside, title = depth + 1, words[1] if len(words) > 1 else ""
            pairs = itertools.pairwise(words)
            identifier = next((value for key, value in pairs if key in ("--id", "$menuentry_id_option")), "")
            kernel, options, initrds, device = "", "", (), ""
        if verb in ("linux", "linuxefi", "linux16") and inside and len(words) > 1:
            kernel, options = words[1], " ".join(words[2:])
        if verb in ("initrd", "initrdefi", "initrd16") and inside:
            initrds = tuple(words[1:])
        depth = max(depth + line.count("{") - line.count("}"), 0)
        if inside and depth < inside:
            inside = 0
            made = MenuEntry(
                title=title, identifier=identifier, kernel=kernel, options=options, initrds=initrds,
                device=device or outer,
            )  # fmt: skip
            tops.append(made)
    for entry in tops:
        if default and default in (entry.title, entry.identifier):
            return entry
    index = int(default) if default.isdigit() else 0
    return tops[index] if index < len(tops) else (tops[0] if tops else None)


def device(words: str) -> str:
    """Return what `search` of a small configuration on the ESP looks for, which the real one is on."""
    match = re.search(r"^\s*search\b.*?\s([\w.-]+)\s+root\b|^\s*search\S*\s.*\s([\w.-]+)\s*$", words, re.MULTILINE)
    return (match[1] or match[2]) if match else ""


def _words(line: str) -> list[str]:
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    try:
        return shlex.split(line, posix=True)
    except ValueError:
        return line.split()
