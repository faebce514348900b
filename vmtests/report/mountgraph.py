"""The guest's mounts as a graph to draw: file systems on disks, overlays made of them, and binds over those."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from vmtests.guest.facts import Mount

_DISKS = frozenset({"vfat", "erofs", "ext4", "xfs", "btrfs", "squashfs", "f2fs", "bcachefs", "iso9660"})
_BOXES = 24
_WIDTH, _HEIGHT, _GAP, _RISE = 230, 58, 20, 54


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A mount: where it is drawn, in pixels, and what is written on it; `kind` is `disk`, `overlay` or `bind`."""

    x: int
    y: int
    kind: str
    target: str
    what: str
    options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """From the box below to the box that is made of it; `name` says as what: `lower`, `upper`, `bind`."""

    x1: int
    y1: int
    x2: int
    y2: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Boxes and edges, and the size of the drawing in pixels."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: int
    height: int
    box: tuple[int, int] = (_WIDTH, _HEIGHT)


def graph(mounts: Sequence[Mount]) -> Graph | None:
    """Return what is drawn of a guest's mounts; None where there is no file system on a disk."""
    shown = [mount for mount in mounts if mount.fstype in _DISKS or mount.fstype == "overlay"][:_BOXES]
    first: dict[str, Mount] = {}
    for mount in shown:
        first.setdefault(mount.device, mount)
    rows: tuple[list[Mount], ...] = ([], [], [])
    for mount in shown:
        row = 2 if first[mount.device] is not mount else 1 if mount.fstype == "overlay" else 0
        rows[row].append(mount)
    if not rows[0]:
        return None
    rows[0].sort(key=lambda mount: (mount.fstype != "erofs", mount.target != "/", mount.target))
    filled = [row for row in rows if row]
    place = {
        mount.id: (_GAP + x * (_WIDTH + _GAP), _GAP + y * (_HEIGHT + _RISE))
        for y, row in enumerate(filled)
        for x, mount in enumerate(row)
    }
    kinds = {mount.id: kind for row, kind in zip(rows, ("disk", "overlay", "bind"), strict=True) for mount in row}
    boxes = [
        Box(
            x=place[mount.id][0],
            y=place[mount.id][1],
            kind=kinds[mount.id],
            target=_short(mount.target),
            what=_short(f"{mount.fstype} {mount.source if mount.fstype != 'overlay' else ''}".strip()),
            options=_options(mount),
        )
        for row in rows
        for mount in row
    ]
    edges = []
    for mount in rows[1]:
        for name in ("lower", "upper"):
            for path in (mount.option(f"{name}dir") or "").split(":"):
                below = _holder(path, shown, mount)
                edges += [] if below is None else [_edge(place, below, mount, f"{name}dir")]
    edges += [_edge(place, first[mount.device], mount, "bind") for mount in rows[2]]
    longest = max(len(row) for row in filled)
    return Graph(
        boxes=tuple(boxes),
        edges=tuple(edges),
        width=_GAP + longest * (_WIDTH + _GAP),
        height=2 * _GAP + len(filled) * _HEIGHT + (len(filled) - 1) * _RISE,
    )


def _holder(path: str, mounts: Sequence[Mount], overlay: Mount) -> Mount | None:
    """Return the mount that a layer's directory is on: stage 1 names it below /sysroot."""
    if not path:
        return None
    path = posixpath.normpath(path)
    path = path.removeprefix("/sysroot") or "/"
    holders = [
        mount
        for mount in mounts
        if mount.device != overlay.device and (mount.target == "/" or f"{path}/".startswith(f"{mount.target}/"))
    ]
    return max(holders, key=lambda mount: len(mount.target), default=None)


def _edge(place: dict[int, tuple[int, int]], below: Mount, above: Mount, name: str) -> Edge:
    (x1, y1), (x2, y2) = place[below.id], place[above.id]
    aside = {"lowerdir": -40, "upperdir": 40}.get(name, 0)
    return Edge(x1=x1 + _WIDTH // 2, y1=y1 + _HEIGHT, x2=x2 + _WIDTH // 2 + aside, y2=y2, name=name)


def _options(mount: Mount) -> str:
    told = ["ro" if "ro" in mount.options or "ro" in mount.super_options else "rw"]
    return " ".join([*told, *sorted(mount.options & {"nodev", "nosuid", "noexec"})])


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:12]}…{text[-17:]}"
