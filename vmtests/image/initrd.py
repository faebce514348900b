"""Builds an initrd of systemd out of an unpacked Debian tree: programs with their libraries, units, modules.

Libraries are followed through the ELF headers: DT_NEEDED, and what a program says it may dlopen() in its
`.note.dlopen` section (systemd's ELF_DLOPEN_METADATA specification). Without the latter libkmod would be missing,
and the boot would wait 90 seconds for a disk.
"""

import json
import lzma
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from vmtests.errors import HostError
from vmtests.host.architecture import GUEST
from vmtests.host.tools import Toolbox

_LIBRARY_PATH = ("lib64", f"lib/{GUEST.triplet}", f"lib/{GUEST.triplet}/systemd", "lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitrdRecipe:
    """What goes into the initrd, by path below /usr; a trailing `?` marks what may be missing.

    `programs` bring their libraries; `links` are symlinks to programs; `modules` are kernel modules
    by name, with those that they depend on.
    """

    programs: tuple[str, ...]
    links: tuple[str, ...]
    units: tuple[str, ...]
    udev_rules: tuple[str, ...]
    udev_programs: tuple[str, ...]
    modules: tuple[str, ...]


def needed(path: Path) -> Iterator[str]:
    """Yield the sonames that an ELF file needs or may open, its loader last; nothing for what is not ELF."""
    with path.open("rb") as file:
        try:
            elf = ELFFile(file)
        except ELFError:
            return
        dynamic = elf.get_section_by_name(".dynamic")
        if isinstance(dynamic, DynamicSection):
            for tag in dynamic.iter_tags("DT_NEEDED"):
                yield str(getattr(tag, "needed"))  # noqa: B009 - pyelftools sets it at run time
        if (notes := elf.get_section_by_name(".note.dlopen")) is not None:
            # One JSON array per note, padded with zeros; the section holds nothing else that has brackets.
            for match in re.finditer(rb"\[\{.*?\}\]", notes.data(), re.DOTALL):
                for entry in json.loads(match[0]):
                    # What is only suggested (archives, PKCS#11, …) would make half of the initrd.
                    if entry.get("priority") != "suggested":
                        yield from entry.get("soname", ())[:1]
        for segment in elf.iter_segments("PT_INTERP"):
            assert isinstance(segment, InterpSegment)
            yield Path(segment.get_interp_name()).name


class Staging:
    """The initrd as a directory of copies of the tree's files; `usr` is the tree's /usr."""

    def __init__(self, usr: Path, directory: Path) -> None:
        self._usr = usr
        self.directory = directory
        for name in ("bin", "sbin", "lib", "lib64"):
            (directory / "usr" / name).mkdir(parents=True)
            (directory / name).symlink_to(f"usr/{name}")
        for name in ("dev", "proc", "run", "sys", "sysroot", "tmp", "var", "etc", "root"):
            (directory / name).mkdir()
        (directory / "var/run").symlink_to("/run")

    def add(self, name: str) -> bool:
        """Copy a file or symlink, what it points to, and the libraries of both; return whether it is in."""
        optional, name = name.endswith("?"), name.rstrip("?")
        source = self._usr / name
        target = self.directory / "usr" / name
        if target.exists() or target.is_symlink():
            return True
        if not source.exists() and not source.is_symlink():
            if optional:
                return False
            raise HostError(f"the reference tree has no /usr/{name}", hint="remove the cache to have it made again")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            link = os.fspath(source.readlink())
            target.symlink_to(link)
            below = link.removeprefix("/usr/") if link.startswith("/") else os.path.normpath(Path(name).parent / link)
            if link.startswith("/") and not link.startswith("/usr/"):
                below = link.removeprefix("/")
            return self.add(f"{below}?" if optional else below)
        shutil.copy2(source, target)
        for soname in needed(source):
            self.add_library(soname)
        return True

    def add_library(self, soname: str) -> None:
        """Copy a library by its soname; one that the tree does not have was an optional dlopen()."""
        for directory in _LIBRARY_PATH:
            if (self._usr / directory / soname).exists():
                self.add(f"{directory}/{soname}")
                return

    def _add_tree(self, name: str) -> None:
        """Copy a directory as it is, without following anything."""
        shutil.copytree(self._usr / name, self.directory / "usr" / name, symlinks=True, dirs_exist_ok=True)

    def add_unit(self, name: str) -> None:
        """Copy a unit with its drop-ins, and every .wants and .requires link to it."""
        units = self._usr / "lib/systemd/system"
        if not self.add(f"lib/systemd/system/{name}"):
            return
        name = name.rstrip("?")
        if (units / f"{name}.d").is_dir():
            self._add_tree(f"lib/systemd/system/{name}.d")
        for link in (*units.glob(f"*.wants/{name}"), *units.glob(f"*.requires/{name}")):
            self.add(os.fspath(link.relative_to(self._usr)))

    def add_modules(self, release: str, names: Sequence[str], toolbox: Toolbox) -> None:
        """Copy kernel modules with their dependencies, unpacked, and index them."""
        source = self._usr / "lib/modules" / release
        target = self.directory / "usr/lib/modules" / release
        files = {_module_name(path.name): path for path in source.rglob("*.ko*")}
        pending, seen = [name.replace("-", "_") for name in names], set[str]()
        while pending:
            if (name := pending.pop()) in seen:
                continue
            seen.add(name)
            if name not in files:
                if name in _builtin(source):
                    continue
                raise HostError(f"kernel {release} has no module {name}")
            copy = target / files[name].relative_to(source).with_name(f"{_plain(files[name].name)}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            packed = files[name].suffix == ".xz"
            copy.write_bytes(lzma.decompress(files[name].read_bytes()) if packed else files[name].read_bytes())
            pending += _depends(copy)
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            shutil.copy2(source / index, target / index)
        toolbox.run("depmod", "--basedir", self.directory, release)

    def pack(self, output: Path, toolbox: Toolbox) -> None:
        """Write the compressed archive to `output`; equal content gives equal bytes."""
        plain = output.with_suffix(".cpio")
        names = sorted(os.fspath(path.relative_to(self.directory)) for path in self.directory.rglob("*"))
        for name in names:
            os.utime(self.directory / name, (1, 1), follow_symlinks=False)
        toolbox.run(
            *("cpio", "--create", "--quiet", "--format=newc", "--reproducible", "--owner=+0:+0"),
            *("--directory", self.directory, "--file", plain),
            stdin="".join(f"{name}\n" for name in names),
        )
        toolbox.run("zstd", "--quiet", "--force", "--rm", "-T0", "-10", plain, "-o", output)


def _plain(name: str) -> str:
    return name.removesuffix(".xz")


def _module_name(name: str) -> str:
    return _plain(name).removesuffix(".ko").replace("-", "_")


def _builtin(modules: Path) -> set[str]:
    return {_module_name(Path(line).name) for line in (modules / "modules.builtin").read_text().split()}


def _depends(module: Path) -> Iterable[str]:
    match = re.search(rb"(?:^|\0)depends=([^\0]*)", module.read_bytes())
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []
