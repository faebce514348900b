"""The files of the root partition, made in a directory: what a spec names, mount points, and the Nix database."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import quote, urlencode

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image.mkerofs import STORE_TIME
from vmtests.image.spec import ImageSpec, RootEntry
from vmtests.image.store import as_text, records
from vmtests.resources import read_named
from vmtests.sizes import GIB
from vmtests.text import printable

DATABASE = 2
"""Bytes of the Nix database for each of a registration, at most."""

_REGISTRATION_LIMIT = GIB  # bytes; a thousand for each path


_REGISTRATION = "registration"  # beside the root


def fill(spec: ImageSpec, contract: Contract, root: Path) -> None:
    """Put all that `spec` and `contract` have on the root partition, but the database, into the new directory `root`.

    Raises InputError for what would be written through a symlink, on this host, and for a registration that is none.
    """
    root.mkdir()
    for index, entry in enumerate(spec.root):
        _place(entry, f"image {spec.name}: root[{index}].path", root)
    # upperdir and workdir are made at boot; here is only what is mounted on.
    for mount_point in (contract.store.mount, contract.store.lower):
        _target(root, mount_point, f"image {spec.name}").mkdir(parents=True, exist_ok=True)
    if spec.registration is not None:
        place = f"image {spec.name}"
        for made in ("db", "gcroots"):
            _target(root, f"{_state(spec, contract)}/{made}", place).mkdir(parents=True, exist_ok=True)
        registered = _registered(spec, spec.registration, f"{place}: registration:")
        root.with_name(_REGISTRATION).write_text(registered, encoding="utf-8")


def _state(spec: ImageSpec, contract: Contract) -> str:
    return spec.state or contract.store.state


def finish(spec: ImageSpec, contract: Contract, root: Path, toolbox: Toolbox) -> None:
    """Make the database of a root that was filled, which takes a second for 20,000 paths, and set all times.

    Raises ToolError when Nix refuses the registration.
    """
    if spec.registration is not None:
        _load_database(_state(spec, contract), contract, root, toolbox)
    for directory, names, files in os.walk(root):
        for item in (*names, *files):
            os.utime(Path(directory, item), (STORE_TIME, STORE_TIME), follow_symlinks=False)


def _place(entry: RootEntry, place: str, root: Path) -> None:
    target = _target(root, entry.path, place, file=entry.source is not None and entry.source.is_file())
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.symlink is not None:
        if target.exists():
            raise InputError(f"{place}: {entry.path} is there already")
        target.symlink_to(entry.symlink)
    elif entry.source is None:
        target.mkdir(exist_ok=True)
    elif entry.source.is_dir():
        if target.exists():
            _check_merge(entry.source, target, place, root)
        shutil.copytree(entry.source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(entry.source, target, follow_symlinks=True)
    if entry.mode is not None and entry.symlink is None:
        target.chmod(int(entry.mode, 8))


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


def _check_merge(source: Path, target: Path, place: str, root: Path) -> None:
    """Raise InputError where a tree that is copied into a directory would meet anything but its like."""
    for directory, names, files in os.walk(source):
        for name in (*names, *files):
            new, old = Path(directory, name), target / os.path.relpath(directory, source) / name
            if old.is_symlink() or (old.exists() and (new.is_symlink() or new.is_dir() != old.is_dir())):
                shown = printable(os.path.normpath(f"/{old.relative_to(root)}"))
                raise InputError(f"{place}: {new} cannot be copied: {shown} is there already, and {_kind(old)}")


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
