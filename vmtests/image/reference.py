"""The reference image: real Debian binaries in a real Nix store, described by `fixtures/reference/`.

The result is an `ImageSpec`, as NixOS gives one: this module knows nothing about disks.
"""

import functools
import hashlib
import json
import os
import random
import secrets
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vmtests import progress
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.architecture import GUEST
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.host.tree import make_tree
from vmtests.image.initrd import InitrdRecipe, Staging
from vmtests.image.modes import usual_modes
from vmtests.image.spec import ImageSpec, RootEntry, StoreSpec
from vmtests.image.store import NixStore
from vmtests.resources import fixture
from vmtests.sizes import GIB, KIB, MIB, parse_size

_SYSTEM_UNITS = (
    "growpart.service",
    "google-guest-agent.service",
    "google-startup-scripts.service",
    "ssh.service",
    "sshd-keygen.service",
    "systemd-networkd.service",
    "systemd-timesyncd.service",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """Optional modules of an image: early boot on the console, and store paths of a total size in bytes."""

    debug: bool = False
    bloat: int = 0

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Modules":
        """Read `debug`, `bloat` (1 GiB) and `bloat:SIZE`; raises InputError for anything else."""
        debug, bloat = False, 0
        for word in words:
            name, _, argument = word.partition(":")
            if name == "debug" and not argument:
                debug = True
            elif name == "bloat" and (argument or ":" not in word):
                bloat = parse_size(argument) if argument else GIB
                if not MIB <= bloat <= 1024 * GIB:
                    raise InputError(f"bloat of {argument} is not possible", hint="from 1M to 1T")
            else:
                raise InputError(f"unknown module {word!r}", hint="modules are: debug, bloat, bloat:SIZE")
        return cls(debug=debug, bloat=bloat)

    def __str__(self) -> str:
        words = [
            *(["debug"] if self.debug else []),
            *([f"bloat-{self.bloat}"] if self.bloat else []),
        ]
        return "+".join(words)


@functools.cache
def recipe() -> dict[str, Any]:
    """Return `fixtures/reference/recipe.toml`."""
    return tomllib.loads(fixture("reference/recipe.toml").read_text())


def fingerprint() -> str:
    """Return a digest of all that the image is described by: the recipe and every file beside it."""
    base = fixture("reference")
    digest = hashlib.sha256()
    for path in sorted(base.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(base)}\0{path.stat().st_mode & 0o100}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@usual_modes()
def describe(contract: Contract, modules: Modules, work: Path, toolbox: Toolbox, cache: Path) -> ImageSpec:
    """Make everything that the image consists of, in `work` and in the Nix store in `cache`, and its spec."""
    tree = make_tree(recipe()["packages"], name="reference", title="reference tree (Debian 13, about 120 MB to fetch)")
    store = NixStore(root=cache / "store", toolbox=toolbox)
    userland = _userland(tree, store, work)
    system = _system(userland, contract, store, work)
    bloat = _bloat(modules.bloat, store, work)
    paths = [userland, system, *bloat]
    registration = work / "registration"
    registration.write_text(store.registration(paths, {system: [userland, *bloat]}))
    initrd = work / "initrd.zst"
    _initrd(tree, contract, modules, work / "initrd", initrd, toolbox)
    entry = _entry(contract, modules, system, work)
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    boot_loader = toolbox_file(toolbox, f"usr/lib/systemd/boot/efi/{GUEST.systemd_boot}")
    return ImageSpec(
        version=1,
        name=f"reference{'+' if str(modules) else ''}{modules}",
        esp={
            contract.boot.loader: boot_loader,
            # A later `bootctl update` looks here (bootctl(1)).
            f"/EFI/systemd/{GUEST.systemd_boot}": boot_loader,
            contract.boot.loader_config: entry.parent / "loader.conf",
            contract.boot.entry: entry,
            contract.boot.kernel: kernel,
            contract.boot.initrd: initrd,
        },
        store=StoreSpec(directory=store.directory, paths=tuple(paths)),
        registration=registration,
        root=tuple(_root(tree, userland, system, contract, work)),
    )


def toolbox_file(toolbox: Toolbox, name: str) -> Path:
    """Return a file that comes with the tools: the tree's, else the host's."""
    for root in ([toolbox.tree] if toolbox.tree else []) + [Path("/")]:
        if (path := root / name).is_file():
            return path
    raise InputError(f"/{name} is not installed", hint="apt-get install systemd-boot-efi")


def _render(source: Path, target: Path, values: Mapping[str, str]) -> None:
    text = source.read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _userland(tree: Path, store: NixStore, work: Path) -> str:
    """Add the tree's /usr, without what nothing reads, to the store."""
    key = f"userland-{_digest(tree.name, recipe()['prune'], recipe()['links'])}"
    if (known := store.known(key)) is not None:
        return known
    staged = work / "debian-userland"
    with progress.step("Debian userland into the Nix store"):
        left_out = {path for pattern in recipe()["prune"] for path in (tree / "usr").glob(pattern)}
        shutil.copytree(
            tree / "usr",
            staged,
            symlinks=True,
            copy_function=os.link,
            ignore=lambda directory, names: [name for name in names if Path(directory, name) in left_out],
        )
        for name, target in recipe()["links"].items():
            (staged / name).unlink(missing_ok=True)
            (staged / name).symlink_to(target)
        release = next((staged / "lib/modules").iterdir())
        # depmod writes its index beside the modules; links to the tree's own would be written through.
        run_in(
            store.toolbox.root("depmod"),
            ["depmod", "--basedir", os.fspath(_as_usr(staged, work)), release.name],
        )
        return store.add_once(key, staged)


def _as_usr(staged: Path, work: Path) -> Path:
    """Return a directory in which `lib/modules` are those of `staged`."""
    base = work / "depmod"
    base.mkdir(exist_ok=True)
    (base / "lib").symlink_to(staged / "lib")
    return base


def _values(contract: Contract, userland: str) -> dict[str, str]:
    options = contract.store.overlay_options("/sysroot")
    return {
        "userland": userland,
        "store": contract.store.mount,
        "group": str(contract.store.group),
        "mode": contract.store.mode,
        "bind_options": " ".join(contract.store.bind_options),
        "bind_list": ",".join(contract.store.bind_options),
        "upper": options["upperdir"],
        "work": options["workdir"],
    }


def _system(userland: str, contract: Contract, store: NixStore, work: Path) -> str:
    """Add the directory that `init=` points into, as a NixOS system is one, to the store."""
    staged = work / "reference-system"
    for source in sorted(fixture("reference/system").iterdir()):
        _render(source, staged / source.name, _values(contract, userland))
    (staged / "init").symlink_to(f"{userland}/lib/systemd/systemd")
    (staged / "sw").symlink_to(userland)
    path = store.add(staged)
    shutil.rmtree(staged)
    return path


def _bloat(size: int, store: NixStore, work: Path) -> list[str]:
    """Add paths of `size` bytes in total: half of it compressible, a tenth in small files, the same each time."""
    if size == 0:
        return []
    count = max(1, min(64, size // (128 * MIB)))
    paths = []
    with progress.step(f"bloat of {size // MIB} MiB into the Nix store") as running:
        for index in range(count):
            share = size // count + (size % count if index == 0 else 0)
            key = f"bloat-{index}-{share}"
            if (known := store.known(key)) is None:
                running.note(f"path {index + 1} of {count}")
                staged = work / f"bloat-{index}"
                staged.mkdir()
                _fill(staged, share, random.Random(index))  # noqa: S311 - content, not a secret
                known = store.add_once(key, staged)
            paths.append(known)
    return paths


def _fill(directory: Path, size: int, source: random.Random) -> None:
    """Write files of `size` bytes in total into `directory`."""
    small, large = 16 * KIB, 4 * MIB
    written = number = 0
    while written < size:
        length = min(small if written < size // 10 else large, size - written)
        folder = directory / f"{number // 256:03}"
        folder.mkdir(exist_ok=True)
        half = length // 2
        text = (b"%08d all work and no play \n" % number) * (half // 31 + 1)
        (folder / f"{number:06}").write_bytes(source.randbytes(length - half) + text[:half])
        written += length
        number += 1


def _initrd(tree: Path, contract: Contract, modules: Modules, directory: Path, output: Path, toolbox: Toolbox) -> None:
    parts = msgspec.convert(recipe()["initrd"], InitrdRecipe)
    staging = Staging(tree / "usr", directory)
    for program in (*parts.programs, *parts.links, *parts.udev_programs):
        staging.add(program)
    for rules in parts.udev_rules:
        staging.add(f"lib/udev/rules.d/{rules}")
    for unit in parts.units:
        staging.add_unit(unit)
    release = next((tree / "usr/lib/modules").iterdir()).name
    staging.add_modules(release, parts.modules, toolbox)
    base = fixture("reference/initrd")
    for source in sorted(base.rglob("*")):
        if source.is_file():
            _render(source, directory / source.relative_to(base), _values(contract, ""))
    etc = directory / "etc"
    shutil.copy2(tree / "usr/lib/os-release", etc / "initrd-release")
    (etc / "os-release").symlink_to("initrd-release")
    (etc / "sysroot-fstab").write_text(_fstab(contract))
    (directory / "init").symlink_to("usr/lib/systemd/systemd")
    units = etc / "systemd/system"
    for target, unit in (
        (contract.units.initrd_fs, "sysroot-run.mount"),
        (contract.stage1_mount[-1].unit, contract.units.make_upper),
        ("initrd.target", contract.units.find_closure),
        (contract.units.switch_root, contract.units.activation),
    ):
        (units / f"{target}.requires").mkdir(exist_ok=True)
        (units / f"{target}.requires" / unit).symlink_to(f"../{unit}")
    if modules.debug:
        # An empty password: the emergency shell opens without one.
        (etc / "shadow").write_text("root::1::::::\n")
    (etc / "shadow").chmod(0o600)
    staging.pack(output, toolbox)


def _fstab(contract: Contract) -> str:
    """Return the mounts of stage 1; the booted system's /etc/fstab begins with the same lines, as on NixOS."""
    store = contract.store
    overlay = [f"{key}={value}" for key, value in store.overlay_options("/sysroot").items()]
    requires = [f"x-systemd.requires-mounts-for={value}" for value in store.overlay_options("/sysroot").values()]
    root, lower = contract.root, contract.store_partition
    return (
        f"{root.device} / {root.filesystem} x-systemd.growfs,x-initrd.mount 0 1\n"
        f"{lower.device} {store.lower} {lower.filesystem} x-initrd.mount,ro 0 0\n"
        f"overlay {store.mount} overlay {','.join([*overlay, 'x-initrd.mount', *requires])} 0 0\n"
    )


def _entry(contract: Contract, modules: Modules, system: str, work: Path) -> Path:
    """Write the boot loader's entry and its configuration; return the entry's path."""
    extra = recipe()["module"]["debug"] if modules.debug else {"params": [], "drop": []}
    params = [word for word in recipe()["kernel"]["params"] if word not in extra["drop"]] + extra["params"]
    console = f"console={contract.boot.console},{contract.boot.console_speed}n8"
    entry = work / "entry.conf"
    entry.write_text(
        "title vmtests reference image\n"
        f"linux {contract.boot.kernel}\n"
        f"initrd {contract.boot.initrd}\n"
        f"options {' '.join([f'init={system}/init', console, *params])}\n"
    )
    (work / "loader.conf").write_text("timeout 0\neditor no\n")
    return entry


def _root(tree: Path, userland: str, system: str, contract: Contract, work: Path) -> list[RootEntry]:
    etc = work / "etc"
    shutil.copytree(tree / "etc", etc, symlinks=True)
    base = fixture("reference/root/etc")
    shutil.copytree(base, etc, symlinks=True, dirs_exist_ok=True)
    esp = contract.esp
    (etc / "fstab").write_text(f"{_fstab(contract)}{esp.device} /boot {esp.filesystem} umask=0077 0 2\n")
    (etc / "hostname").unlink(missing_ok=True)
    shutil.copy2(tree / "usr/share/openssh/sshd_config", etc / "ssh/sshd_config")
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("nameserver 169.254.169.254\n")
    for unit in _SYSTEM_UNITS:
        wants = etc / "systemd/system" / f"{_wanted_by(unit)}.wants"
        wants.mkdir(exist_ok=True)
        own = (etc / "systemd/system" / unit).is_file()
        (wants / unit).symlink_to(f"../{unit}" if own else f"/usr/lib/systemd/system/{unit}")
    _users(tree, etc, work)
    # By the tree's own paths, whether or not it can be entered; with them it is written inside, too.
    cache = f"/etc/ld.so.cache.{secrets.token_hex(4)}"
    run_in(tree, ["ldconfig", "-X", "-r", os.fspath(tree), "-C", cache])
    shutil.move(f"{tree}{cache}", etc / "ld.so.cache")
    # As new as /usr, so that no boot rebuilds the hardware database or the linker's cache (systemd.unit(5),
    # ConditionNeedsUpdate=).
    (etc / ".updated").touch()
    links = {
        "/etc/systemd/system/default.target": f"/usr/lib/systemd/system/{contract.units.ready}",
        **{f"/etc/systemd/system/{unit}": "/dev/null" for unit in recipe()["masked"]},
        **{f"/etc/systemd/system-generators/{name}": "/dev/null" for name in recipe()["masked_generators"]},
        "/usr": userland,
        **{f"/{name}": f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")},
        "/var/run": "/run",
        "/nix/var/nix/profiles/system": system,
        "/nix/var/nix/gcroots/booted-system": "/run/booted-system",
        "/nix/var/nix/gcroots/current-system": "/run/current-system",
    }
    plain = (
        "/boot",
        "/dev",
        "/home",
        "/nix/.rw-store",
        "/proc",
        "/run",
        "/srv",
        "/sys",
        "/var/lib",
        "/var/log/journal",
    )
    return [
        RootEntry(path="/etc", source=etc),
        RootEntry(path="/var/.updated", source=etc / ".updated"),
        *(RootEntry(path=path, mode="0755") for path in plain),
        RootEntry(path="/root", mode="0700"),
        RootEntry(path="/tmp", mode="1777"),  # noqa: S108 - the guest's
        RootEntry(path="/var/tmp", mode="1777"),  # noqa: S108 - the guest's
        *(RootEntry(path=path, symlink=target) for path, target in links.items()),
    ]


def _wanted_by(unit: str) -> str:
    return {"growpart.service": "-.mount", "sshd-keygen.service": "ssh.service"}.get(unit, "multi-user.target")


def _users(tree: Path, etc: Path, work: Path) -> None:
    """Make passwd and group with the tree's own systemd-sysusers, as its packages declare them."""
    root = work / "users"
    (root / "usr/lib").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copytree(tree / "usr/lib/sysusers.d", root / "usr/lib/sysusers.d")
    run_in(tree, ["systemd-sysusers", f"--root={root}"])
    for name in ("passwd", "group", "shadow", "gshadow"):
        # systemd-sysusers gives shadow files mode 0, which only root reads.
        (root / "etc" / name).chmod(0o600)
        shutil.copy2(root / "etc" / name, etc / name)
        (etc / name).chmod(0o600 if "shadow" in name else 0o644)
