"""`image.json`: what a disk image is made of. One door for whoever describes an image.

The reference recipe (Python) and NixOS (Nix, `builtins.toJSON`) both write this file; `vmtests build --spec` reads
it. Version 1:

    {
      "version": 1,
      "name": "reference",
      "esp": {"/EFI/BOOT/BOOTX64.EFI": "/abs/file", …},
      "store": {"directory": "/nix/store", "paths": ["/nix/store/<hash>-<name>", …], "path_list": "/abs/file"},
      "registration": "/abs/file",
      "state": "/nix/var/nix",
      "root": [
        {"path": "/etc", "source": "/abs/file-or-directory"},
        {"path": "/tmp", "mode": "1777"},
        {"path": "/usr", "symlink": "/nix/store/…"}
      ],
      "compression": "none",
      "contract": {…},
      "seed": "<uuid>"
    }

`store.directory` is where the named paths are on the machine that builds; further ones may be in the file
`store.path_list`, a path per line. `registration` is what `nix-store --dump-db` writes and `--load-db` reads, and
`state` the directory on the root partition whose `db` is made of it. `compression` is mkfs.erofs(1)'s `-z` argument;
`contract` is the project's own unless given; `seed` makes every UUID of the image. docs/image-json.md says more.
"""

import dataclasses
import os
import stat
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.image import compression
from vmtests.image.spec_check import check_contract, check_esp, check_places, mode_of, refuse_unknown
from vmtests.resources import read_named
from vmtests.text import printable

_NAME_MAX, _PATH_MAX = 255, 4096  # bytes of a name, and of a path with the zero behind it (limits.h)
VERSION = 1
DEFAULT_SEED = "6e8bc2f8-7d6b-4b0a-9c4e-8b2a3a1f5d11"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Store paths by the names that they have in the image, and the directory that holds them now.

    A spec that was loaded has the paths of `path_list` among `paths`.
    """

    directory: Path
    paths: tuple[str, ...] = ()
    path_list: Path | None = None

    @staticmethod
    def name(path: str) -> str:
        """Return the name that a store path has in its directory."""
        return path.rsplit("/", 1)[-1]

    def source(self, path: str) -> Path:
        """Return where a store path is on this machine."""
        return self.directory / self.name(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootEntry:
    """Something on the root partition: a copy of `source`, a symlink, or an empty directory.

    `mode` is octal text; it applies to directories and to copies of single files.
    """

    path: str
    source: Path | None = None
    symlink: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """A whole `image.json`."""

    version: int
    name: str
    esp: dict[str, Path]
    store: StoreSpec
    registration: Path | None = None
    state: str | None = None
    root: tuple[RootEntry, ...] = ()
    compression: str = "none"
    seed: str = DEFAULT_SEED
    contract: dict[str, Any] | None = None

    def image_contract(self, origin: str = "") -> Contract:
        """Return the contract that this image is built to; raises InputError, which names `origin`, if it is none."""
        return (
            contracts.default() if self.contract is None else contracts.from_data(self.contract, origin or self.name)
        )


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"a file's name is text, not {type(value).__name__}")  # which msgspec makes an error of the field


def _encode_path(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


def to_json(spec: ImageSpec) -> bytes:
    """Return the bytes of `image.json`, indented for people."""
    return msgspec.json.format(msgspec.json.encode(spec, enc_hook=_encode_path), indent=2) + b"\n"


def load(path: Path) -> ImageSpec:
    """Read `image.json`; raises InputError that names the field or the file at fault.

    Relative file names are relative to the directory of `path`.
    """
    try:
        data = msgspec.json.decode(read_named(path, hint="give the path of an image.json"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(data, dict) and data.get("version") != VERSION:
        raise InputError(f"{path} has version {data.get('version')!r}", hint=f"this vmtests reads version {VERSION}")
    refuse_unknown(data, ImageSpec, str(path))
    try:
        spec = msgspec.convert(data, ImageSpec, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}", hint="docs/image-json.md describes the format") from error
    places, spec = _absolute(spec, path.absolute().parent)
    _check(spec, places, str(path))
    return spec


def _absolute(spec: ImageSpec, base: Path) -> tuple[list[str], ImageSpec]:
    """Return the spec with whole file names and all store paths, and where each of these is named."""
    places, store = _listed(spec.store, base)
    return places, dataclasses.replace(
        spec,
        esp={target: base / source for target, source in spec.esp.items()},
        store=store,
        registration=None if spec.registration is None else base / spec.registration,
        root=tuple(
            RootEntry(
                path=entry.path,
                source=None if entry.source is None else base / entry.source,
                symlink=entry.symlink,
                mode=entry.mode,
            )
            for entry in spec.root
        ),
    )


def _listed(store: StoreSpec, base: Path) -> tuple[list[str], StoreSpec]:
    """Return `store` with the paths of its list, each once, in the order in which they are named, and their places."""
    places: dict[str, str] = {}
    for index, path in enumerate(store.paths):
        places.setdefault(path, f"store.paths[{index}]")
    path_list = None if store.path_list is None else base / store.path_list
    if path_list is not None:
        listed = read_named(path_list, "the list of store paths").splitlines()
        for number, line in enumerate(listed, 1):
            if path := line.strip():
                places.setdefault(path, f"store.path_list, line {number}")
    return list(places.values()), StoreSpec(directory=base / store.directory, paths=tuple(places), path_list=path_list)


def _check(spec: ImageSpec, places: Sequence[str], origin: str) -> None:
    """Raise InputError when the spec names what does not exist or contradicts itself."""
    contract = spec.image_contract(f"of {origin}")
    check_contract(contract, f"{origin}: contract")
    try:
        seed = uuid.UUID(spec.seed)
    except ValueError as error:
        raise InputError(f"{origin}: seed: {spec.seed!r} is not a UUID") from error
    # The tools take no other way to write one, and nobody's UUID is all zeros.
    if str(seed) != spec.seed.lower() or not seed.int:
        raise InputError(f"{origin}: seed: {spec.seed!r} is not a UUID as uuidgen(1) writes it")
    try:
        compression.parse(spec.compression)
    except InputError as error:
        raise InputError(f"{origin}: compression: {error.message}", hint=error.hint) from error
    check_esp(spec.esp, contract, origin)
    if not spec.store.paths:
        raise InputError(f"{origin}: store: it has no paths", hint="an image without a store cannot boot")
    prefix = contract.store.mount + "/"
    directory = f"{spec.store.directory}/"  # a Path for each of a hundred thousand takes seconds
    for place, path in zip(places, spec.store.paths, strict=True):
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or not name or "/" in name or name.startswith("."):
            raise InputError(f"{origin}: {place}: {path!r} is not a path directly below {contract.store.mount}")
        if not os.path.lexists(directory + name):
            raise InputError(f"{origin}: {place}: {directory}{name} does not exist")
    if spec.registration is not None and not stat.S_ISREG(mode_of(spec.registration, f"{origin}: registration")):
        raise InputError(f"{origin}: registration: {spec.registration} is not a file")
    if spec.state is not None:
        _check_path(spec.state, "state", origin)
    for index, entry in enumerate(spec.root):
        _check_entry(entry, f"root[{index}]", origin)
    check_places([(entry.path, entry.source, entry.symlink is not None) for entry in spec.root], origin)


def _check_path(path: str, place: str, origin: str) -> None:
    parts = Path(path).parts
    if not path.startswith("/") or ".." in parts or len(parts) < 2:
        raise InputError(f"{origin}: {place}: {path!r} is not an absolute path below /")
    if (
        "\0" in path
        or len(os.fsencode(path)) >= _PATH_MAX
        or any(len(os.fsencode(part)) > _NAME_MAX for part in parts)
    ):
        raise InputError(f"{origin}: {place}: {printable(path)} is no path that Linux takes")


def _check_entry(entry: RootEntry, place: str, origin: str) -> None:
    _check_path(entry.path, f"{place}.path", origin)
    if entry.source is not None and entry.symlink is not None:
        raise InputError(f"{origin}: {place}: {entry.path} has both a source and a symlink")
    if entry.symlink is not None and ("\0" in entry.symlink or not 0 < len(os.fsencode(entry.symlink)) < _PATH_MAX):
        what = printable(entry.symlink) or "an empty one"
        raise InputError(f"{origin}: {place}.symlink: {what} is no target that Linux takes")
    if entry.source is not None:
        mode = mode_of(entry.source, f"{origin}: {place}.source")
        if not mode:
            raise InputError(f"{origin}: {place}.source: {entry.source}, to be {entry.path}, does not exist")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(f"{origin}: {place}.source: {entry.source} is neither a file nor a directory")
    if entry.mode is not None and (not entry.mode or set(entry.mode) - set("01234567") or len(entry.mode) > 4):
        raise InputError(f"{origin}: {place}.mode: {entry.mode!r} of {entry.path} is not octal")
