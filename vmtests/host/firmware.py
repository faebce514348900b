"""UEFI firmware, found by QEMU's firmware descriptors.

The format and the search rules are QEMU's docs/interop/firmware.json: descriptors are read in the order of
their file names; a file in a directory of higher priority takes the place of one with the same name in a
lower one, and masks it when it is empty.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.host.architecture import GUEST
from vmtests.host.sandbox import refusal

_DIRECTORIES = ("etc/qemu/firmware", "usr/share/qemu/firmware")  # of falling priority
_LINKS_LIMIT = 40  # as in path_resolution(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareFile:
    """A file of the firmware, as QEMU names it in its sandbox, where it is for us, and its format."""

    inside: Path
    outside: Path
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """Firmware for a machine: code, template of its variables, and the descriptor it was found by."""

    code: FirmwareFile
    vars_template: FirmwareFile
    descriptor: Path
    description: str
    features: frozenset[str]

    @property
    def secure_boot(self) -> bool:
        """Whether it checks signatures with keys that are enrolled."""
        return {"secure-boot", "enrolled-keys"} <= self.features

    @property
    def needs_smm(self) -> bool:
        """Whether it runs only on a machine with system management mode."""
        return "requires-smm" in self.features


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All usable firmware, best first, and a note for each descriptor that cannot be used."""

    firmware: tuple[Firmware, ...]
    notes: tuple[str, ...]


class _File(msgspec.Struct):
    filename: str
    format: str


class _Flash(msgspec.Struct, tag_field="device", tag="flash"):
    executable: _File
    mode: str = "split"
    nvram_template: _File | None = msgspec.field(default=None, name="nvram-template")


class _Memory(msgspec.Struct, tag_field="device", tag="memory"):
    filename: str


class _Kernel(msgspec.Struct, tag_field="device", tag="kernel"):
    filename: str


class _Target(msgspec.Struct):
    architecture: str
    machines: list[str]


class _Descriptor(msgspec.Struct, rename="kebab"):
    description: str
    interface_types: list[str]
    mapping: _Flash | _Memory | _Kernel
    targets: list[_Target]
    features: list[str]


def find(root: Path, *, secure_boot: bool = False) -> Firmware:
    """Return the first firmware below `root`, the root directory of the QEMU that is used.

    Without secure boot it is one that cannot do it, because its code is smaller and needs no SMM; with it,
    one with enrolled keys. Raises HostError when there is none.
    """
    findings = survey(root)
    for firmware in findings.firmware:
        if firmware.secure_boot if secure_boot else "secure-boot" not in firmware.features:
            return firmware
    kind = "with secure boot and enrolled keys" if secure_boot else "without secure boot"
    raise HostError(
        f"no UEFI firmware {kind} for {GUEST.board} is described in {Path(root, _DIRECTORIES[-1])}"
        + (f" ({'; '.join(findings.notes)})" if findings.notes else ""),
        hint="install OVMF (Debian: ovmf, Fedora: edk2-ovmf); vmtests doctor says what was found",
    )


def survey(root: Path) -> Findings:
    """Read every descriptor below `root`; what is broken or not for us becomes a note, never an error."""
    found: list[Firmware] = []
    notes: list[str] = []
    for path in _descriptors(root):
        try:
            data = path.read_bytes()
            if not data:
                continue
            descriptor = msgspec.json.decode(data, type=_Descriptor)
        except OSError as error:
            notes.append(f"{path.name}: {error.strerror}")
            continue
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            notes.append(f"{path.name}: {error}")
            continue
        usable = _usable(root, path, descriptor)
        if isinstance(usable, Firmware):
            found.append(usable)
        else:
            notes.append(f"{path.name}: {usable}")
    return Findings(firmware=tuple(found), notes=tuple(notes))


def _descriptors(root: Path) -> Iterator[Path]:
    by_name: dict[str, Path] = {}
    # A QEMU that is not in /usr, as on NixOS, has its descriptors beside it.
    beside = tools.host_firmware() if root == Path("/") else ()
    for directory in (*(root / name for name in _DIRECTORIES), *beside):
        for path in directory.glob("*.json"):
            by_name.setdefault(path.name, path)
    for name in sorted(by_name):
        yield by_name[name]


def _usable(root: Path, path: Path, descriptor: _Descriptor) -> Firmware | str:
    """Return the firmware of a descriptor, or why it cannot be used."""
    if "uefi" not in descriptor.interface_types:
        return "not UEFI"
    if not any(
        target.architecture == GUEST.qemu_name
        and any(fnmatch.fnmatchcase(GUEST.board_version, glob) for glob in target.machines)
        for target in descriptor.targets
    ):
        return f"not for {GUEST.board} on {GUEST.qemu_name}"
    mapping = descriptor.mapping
    if not isinstance(mapping, _Flash):
        return "not mapped as flash"
    if mapping.mode != "split" or mapping.nvram_template is None:
        return f"flash mode {mapping.mode} keeps no variables of its own"
    code, template = _file(root, mapping.executable), _file(root, mapping.nvram_template)
    for file in (code, template):
        if not file.outside.is_file():
            return f"{file.inside} does not exist"
    return Firmware(
        code=code,
        vars_template=template,
        descriptor=path,
        description=descriptor.description,
        features=frozenset(descriptor.features),
    )


def _file(root: Path, file: _File) -> FirmwareFile:
    outside = _outside(root, Path(file.filename))
    inside = Path(file.filename) if refusal() is None else outside
    return FirmwareFile(inside=inside, outside=outside, format=file.format)


def _outside(root: Path, inside: Path) -> Path:
    """Return where `inside` is for us; symbolic links are followed as they are with `root` as the root."""
    place, todo, links = root, list(reversed(inside.parts[1:])), 0
    while todo:
        part = todo.pop()
        if part == "..":
            place = root if place == root else place.parent
            continue
        step = place / part
        if step.is_symlink() and links < _LINKS_LIMIT:
            links += 1
            target = step.readlink()
            todo.extend(reversed([piece for piece in target.parts if piece != "/"]))
            place = root if target.is_absolute() else place
        else:
            place = step
    return place
