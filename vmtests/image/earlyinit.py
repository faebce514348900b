"""Whether the kernel can start the program /init of its initrds (init/main.c and fs/exec.c of Linux 6.12)."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from vmtests.image.check import clean

_LINKS = 40  # that are followed (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Node:
    """A file of an initrd: its mode, and where a link leads, or what a script is run by."""

    mode: int
    target: str = ""


_LAST = ("sbin/init", "etc/init", "bin/init", "bin/sh")
"""What is started where /init is there and cannot be run."""


def fault(tree: Mapping[str, Node], program: str) -> str:
    """Return why `program` is not started, nothing where it is; paths of the tree have no slash in front."""
    shown = f"/{program.strip('/')}"
    node = _found(tree, program)
    if node is None:
        return f"{clean(shown)} leads nowhere" if program.strip("/") in tree else f"there is no {clean(shown)}"
    if not stat.S_ISREG(node.mode):
        return f"{clean(shown)} is no file"
    if not node.mode & 0o111:
        return f"{clean(shown)} is not executable"
    return ""


def panic(tree: Mapping[str, Node], program: str) -> str:
    """Return why the kernel ends in a panic over a `program` that it starts; nothing where it does not."""
    node = _found(tree, program)
    if node is None or not node.target or _found(tree, node.target) is not None:
        return ""
    if any(_found(tree, path) is not None for path in _LAST):
        return ""
    return f"/{clean(program.strip('/'))} is run by {clean(node.target)}, which is not there"


def interpreter(head: bytes) -> str:
    """Return the program that a script's first line names; nothing where it is no script."""
    words = head[2:].split(b"\n", 1)[0].split() if head.startswith(b"#!") else []
    return words[0].decode("utf-8", "replace") if words else ""


def _found(tree: Mapping[str, Node], path: str) -> Node | None:
    """Return what a path leads to, through all links."""
    waiting = [part for part in reversed(path.split("/")) if part]
    here: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == ".":
            continue
        if part == "..":
            here = here[:-1]
            continue
        here.append(part)
        node = tree.get("/".join(here))
        if node is not None and stat.S_ISLNK(node.mode):
            links += 1
            if links > _LINKS:
                return None
            here = [] if node.target.startswith("/") else here[:-1]
            waiting += [part for part in reversed(node.target.split("/")) if part]
    return tree.get("/".join(here))
