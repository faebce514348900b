"""The files of the root partition, made in a directory: what a spec names, mount points, and the Nix database."""

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image.mkerofs import STORE_TIME
from vmtests.image.spec import ImageSpec, RootEntry
from vmtests.image.store import as_text, records
from vmtests.image.survey import unreadable
from vmtests.resources import read_named
from vmtests.sizes import GIB
from vmtests.text import printable

DATABASE = 2
"""Bytes of the Nix database for each of a registration, at most."""

_REGISTRATION_LIMIT = GIB  # bytes; a thousand for each path


_REGISTRATION = "registration"  # beside the root

Modes = dict[Path, int]
"""Modes that files and directories get in the end: until then their owner can write to all of them."""


def fill(spec: ImageSpec, contract: Contract, root: Path) -> Modes:
    """Put all that `spec` and `contract` have on the root partition, but the database, into the new directory `root`.

    Returns the modes that `finish` gives. Raises InputError for what cannot be read, for what would be written through
    a symlink, on this host, and for a registration that is none.
    """
    modes: Modes = {}
    root.mkdir()
    for index, entry in enumerate(spec.root):
        _place(entry, f"image {spec.name}: root[{index}]", root, modes)
    # upperdir and workdir are made at boot; here is only what is mounted on.
    for mount_point in (contract.store.mount, contract.store.lower):
        _target(root, mount_point, f"image {spec.name}").mkdir(parents=True, exist_ok=True)
    if spec.registration is not None:
        place = f"image {spec.name}"
        for made in ("db", "gcroots"):
            _target(root, f"{_state(spec, contract)}/{made}", place).mkdir(parents=True, exist_ok=True)
        registered = _registered(spec, spec.registration, f"{place}: registration:")
        root.with_name(_REGISTRATION).write_text(registered, encoding="utf-8")
    return modes


def _state(spec: ImageSpec, contract: Contract) -> str:
    return spec.state or contract.store.state


def finish(spec: ImageSpec, contract: Contract, root: Path, modes: Modes, toolbox: Toolbox) -> None:
    """Make the database of a root that was filled, which takes a second for 20,000 paths; set all modes and times.

    Raises ToolError when Nix refuses the registration.
    """
    if spec.registration is not None:
        _load_database(_state(spec, contract), contract, root, toolbox)
    # What is in a directory comes first: it may not be entered with the mode that it gets.
    for name, _ in reversed(list(_below(root))):
        path = root / name
        os.utime(path, (STORE_TIME, STORE_TIME), follow_symlinks=False)
        if (mode := modes.get(path)) is not None:
            path.chmod(mode)


def _below(top: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Give all that is below a directory, by its path from there; a directory comes before what is in it."""
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(top / above) as entries:
            for entry in entries:
                name = os.path.join(above, entry.name)  # noqa: PTH118 - a Path for each takes its time
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                yield name, entry


def _place(entry: RootEntry, place: str, root: Path, modes: Modes) -> None:
    target = _target(root, entry.path, f"{place}.path", file=entry.source is not None and entry.source.is_file())
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.symlink is not None:
        if target.exists():
            raise InputError(f"{place}.path: {entry.path} is there already")
        target.symlink_to(entry.symlink)
        return
    if entry.source is None:
        target.mkdir(exist_ok=True)
    elif entry.source.is_dir():
        _copy_tree(entry.source, target, place, root, modes)
    else:
        _copy_file(entry.source, target, place, modes)
    if entry.mode is not None:
        modes[target] = int(entry.mode, 8)


def _copy_tree(source: Path, target: Path, place: str, root: Path, modes: Modes) -> None:
    """Copy a tree into a directory: content and modes, and nothing else that this host says of its files.

    Labels of SELinux, capabilities and the like (xattr(7)) would be there or not, by who builds and where.
    """
    target.mkdir(exist_ok=True)
    modes[target] = stat.S_IMODE(source.stat().st_mode)
    for name, found in _below(source):
        made = target / name
        is_link, is_directory = found.is_symlink(), found.is_dir(follow_symlinks=False)
        if made.is_symlink() or (made.exists() and (is_link or is_directory != made.is_dir())):
            what = f"{found.path} cannot be copied: {printable(f'/{made.relative_to(root)}')} is there already"
            raise InputError(f"{place}.path: {what}, and {_kind(made)}")
        if is_link:
            os.symlink(os.readlink(found.path), made)  # noqa: PTH115, PTH211 - a Path would tidy its text
        elif is_directory:
            made.mkdir(exist_ok=True)
            modes[made] = stat.S_IMODE(found.stat().st_mode)
        else:
            _copy_file(Path(found.path), made, place, modes)


def _copy_file(source: Path, target: Path, place: str, modes: Modes) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.filename != os.fspath(source):
            raise
        raise unreadable(f"{place}.source", os.fspath(source), error) from error
    modes[target] = stat.S_IMODE(source.stat().st_mode)


def _target(root: Path, path: str, place: str, *, file: bool = False) -> Path:
    """Return where `path` is made; raises InputError where it is or is below what is no directory.

    What is written through a symlink lands where that leads on this host. A `file` may be another instead.
    """
    target = root / path.lstrip("/")
    for part in (*reversed(target.relative_to(root).parents), target.relative_to(root)):
        found = root / part
        if found.is_symlink() or (
            found.exists() and not (found.is_file() if file and found == target else found.is_dir())
        ):
            raise InputError(
                f"{place}: {path} cannot be made: /{printable(str(part))} is there already, and {_kind(found)}"
            )
    return target


def _kind(path: Path) -> str:
    return "a symlink" if path.is_symlink() else "a directory" if path.is_dir() else "a file"


def _registered(spec: ImageSpec, registration: Path, place: str) -> str:
    """Return a registration of paths that are in the image; raises InputError for another."""
    try:
        found = list(records(read_named(registration, place, limit=_REGISTRATION_LIMIT)))
    except ValueError as error:
        raise InputError(f"{place} {registration} is not what `nix-store --dump-db` writes") from error
    if others := {path for path, *_ in found} - set(spec.store.paths):
        what = f"{place} {printable(min(others))} is none of the store's paths"
        raise InputError(what, hint="Nix would take it for valid, and its files are not there")
    return as_text(found)


def _load_database(directory: str, contract: Contract, root: Path, toolbox: Toolbox) -> None:
    """Make the Nix database of the image, once, on its root partition.

    A registration that is loaded at every boot brings back to life what garbage collection had deleted.
    """
    work = root.parent
    state = root / directory.lstrip("/")
    parameters = {"store": contract.store.mount, "state": state, "real": work / "no-store"}
    toolbox.run(
        "nix-store",
        # A store by parameters (nix3-help-stores(1)), with another place for its files than the host's /nix/store.
        *("--store", f"local?{urlencode(parameters, quote_via=quote)}", "--option", "build-users-group", ""),
        "--load-db",
        stdin=root.with_name(_REGISTRATION).read_text(encoding="utf-8"),
        env={
            "NIX_STATE_DIR": os.fspath(state),
            "NIX_CONF_DIR": os.fspath(work),
            "HOME": os.fspath(work),
        },
    )
    with contextlib.closing(sqlite3.connect(state / "db/db.sqlite")) as database, database:
        database.execute("UPDATE ValidPaths SET registrationTime = ?", (STORE_TIME,))
    # Nix makes this link, to where the profiles are now.
    profiles = state / "gcroots/profiles"
    profiles.unlink(missing_ok=True)
    profiles.symlink_to(f"{directory}/profiles")
    for leftover in ("gc.lock", "temproots", "db/big-lock", "db/reserved"):
        path = state / leftover
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
