"""External tools: the host's own when they are good enough, else those of a tools tree (`tree`)."""

import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from vmtests.errors import HostError, hint_of
from vmtests.host.architecture import GUEST
from vmtests.host.place import check
from vmtests.host.sandbox import (
    NO_HOME,
    Sandboxed,
    View,
    ask,
    bare_env,
    run_in,
    sandbox,
    search_path,
    seen_with,
    tool_error,
)
from vmtests.host.tree import make_tree
from vmtests.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A tool that is needed: its Debian package, its least version, and why that version.

    Tools of one `group` come from one place, because they call or read each other.
    """

    name: str
    package: str
    minimum: tuple[int, ...]
    why: str
    version_argv: tuple[str, ...] = ("--version",)
    group: str | None = None


_CANNOT_EXECUTE = 126  # from here on the exit status is the shell's and the loader's word for it, or a signal
READ_SECONDS = 60.0
"""Seconds that `Toolbox.read` gives a tool where nothing else is said."""

READ_LIMIT = 256 << 20
"""Bytes that it takes of its output."""

_PIECE = 1 << 16
_SAID = 1 << 16  # bytes of its last words

_QEMU_WHY = "QEMU 7.2 corrupts guests without KVM"
REQUIREMENTS = (
    Requirement(name=GUEST.qemu, package="qemu-system-x86", minimum=(8, 2), why=_QEMU_WHY, group="machine"),
    Requirement(name="qemu-img", package="qemu-utils", minimum=(8, 2), why=_QEMU_WHY, group="machine"),
    Requirement(
        name="systemd-repart",
        package="systemd-repart",
        minimum=(254,),
        why="--offline and Minimize=",
        group="build",
    ),
    Requirement(
        name="mkfs.erofs",
        package="erofs-utils",
        minimum=(1, 8, 2),
        why="reads a tar stream as it comes",
        group="build",
    ),
    Requirement(name="fsck.erofs", package="erofs-utils", minimum=(1, 8), why="verifies checksums", group="build"),
    Requirement(
        name="mkfs.ext4",
        package="e2fsprogs",
        minimum=(1, 46),
        why="fills a file system without a mount",
        version_argv=("-V",),
        group="build",
    ),
    Requirement(
        name="mkfs.vfat",
        package="dosfstools",
        minimum=(4, 2),
        why="makes the ESP",
        version_argv=(),
        group="build",
    ),
    Requirement(name="mcopy", package="mtools", minimum=(4,), why="fills and reads the ESP", group="build"),
    Requirement(name="sfdisk", package="fdisk", minimum=(2, 38), why="changes a partition table", group="build"),
    Requirement(name="dumpe2fs", package="e2fsprogs", minimum=(1, 46), why="reads a superblock", version_argv=("-V",)),
    Requirement(name="e2fsck", package="e2fsprogs", minimum=(1, 46), why="replays a journal", version_argv=("-V",)),
    Requirement(name="debugfs", package="e2fsprogs", minimum=(1, 46), why="reads unmounted", version_argv=("-V",)),
    Requirement(name="journalctl", package="systemd", minimum=(252,), why="reads compact journals"),
    Requirement(
        name="nix-store",
        package="nix-bin",
        minimum=(2, 20),
        why="registers store paths",
        # It would open the host's store first, which is there for the host's users only.
        version_argv=("--store", "dummy://", "--version"),
    ),
    Requirement(name="cpio", package="cpio", minimum=(2, 12), why="packs an initrd reproducibly"),
    Requirement(name="zstd", package="zstd", minimum=(1, 5), why="packs an initrd"),
    Requirement(name="tar", package="tar", minimum=(1, 29), why="packs sparse files", group="archive"),
    Requirement(name="pigz", package="pigz", minimum=(2, 4), why="packs with all cores", group="archive"),
    Requirement(name="depmod", package="kmod", minimum=(29,), why="lists the modules of an initrd"),
    Requirement(name="fallocate", package="util-linux", minimum=(2, 34), why="makes room in front of a file system"),
    Requirement(name="swtpm", package="swtpm", minimum=(0, 7), why="is the machine's TPM"),
)

# Not programs: firmware, the boot loader, and the C library's own tools that the programs above call.
# dash is /bin/sh, which tar calls its compressor through.
_TREE_EXTRA = ("base-files", "bash", "coreutils", "dash", "ovmf", "systemd-boot-efi", "systemd-ukify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that was found: its version, whether it is the host's, and why it was chosen."""

    name: str
    version: str
    from_host: bool
    why: str


class Toolbox:
    """The tools of this host, each from where it is good enough.

    A `Toolbox` is made by `find`; `argv` gives a command line that can be handed to any process API.
    """

    def __init__(self, tools: dict[str, Tool], tree: Path | None) -> None:
        self.tools = tools
        self.tree = tree

    def root(self, name: str) -> Path:
        """Return the root directory below which the tool `name`, and the data of its package, are."""
        return Path("/") if self.tools[name].from_host or self.tree is None else self.tree

    def machine_files(self) -> list[Path]:
        """Return what QEMU is made of: its program, and the BIOS and ROMs that it finds by itself (qemu(1), `-L`)."""
        root = self.root(GUEST.qemu)
        program = _host_qemu() if root == Path("/") else root / "usr/bin" / GUEST.qemu
        if program is None:
            return []
        data = [program.parent.parent / "share" / name for name in ("qemu", "seabios")]
        return [
            program,
            *sorted(path for place in data for kind in ("bin", "rom") for path in place.glob(f"*.{kind}")),
        ]

    def argv(self, name: str, *args: str | os.PathLike[str], view: View | None = None) -> list[str]:
        """Return the command line that runs a tool.

        All paths of the host but /usr and /etc are as outside; with `view` it sees nothing else.
        """
        if view is not None and self.root(name) == Path("/") and (program := shutil.which(name, path=search_path())):
            view = replace(view, readable=tuple(dict.fromkeys((*seen_with(Path(program)), *view.readable))))
        return [*sandbox(self.root(name), view), name, *(os.fspath(arg) for arg in args)]

    def run(
        self,
        name: str,
        *args: str | os.PathLike[str],
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run a tool to its end, in the directory `cwd` if one is given, and return its standard output.

        Raises ToolError with the last line that the tool wrote on standard error.
        """
        return run_in(self.root(name), [name, *(os.fspath(arg) for arg in args)], stdin=stdin, env=env, cwd=cwd)

    def read(
        self,
        name: str,
        *args: str | os.PathLike[str],
        descriptors: Collection[int] = (),
        output: IO[bytes] | None = None,
        seconds: float = READ_SECONDS,
        limit: int = READ_LIMIT,
        well: Collection[int] = (0,),
        view: View | None = None,
    ) -> bytes:
        """Run a tool on what somebody else has made, and return its standard output; with `view` it sees that alone.

        It has `seconds`, and may write `limit` bytes; with `output`, a file, these go there and are not returned.
        It inherits `descriptors`. `well` are the exit statuses that are no failure. Raises ToolError as `run` does,
        HostError when a limit is reached.
        """
        found, most = bytearray(), limit
        with (
            tempfile.TemporaryFile() as said,
            Sandboxed[bytes](
                self.argv(name, *args, view=view),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**bare_env(), "TZ": "UTC"},
                pass_fds=tuple(descriptors),
            ) as process,
        ):
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(seconds, end)
            timer.start()
            try:
                assert process.stdout is not None
                while piece := process.stdout.read(_PIECE):
                    if (limit := limit - len(piece)) < 0:
                        raise HostError(f"{name} writes more than {most} bytes")
                    if output is None:
                        found += piece
                    else:
                        output.write(piece)
                status = process.wait()
            finally:
                timer.cancel()
                process.kill()
            if late.is_set():
                raise HostError(f"{name} did not end within {seconds:g} s")
            if status not in well:
                said.seek(max(said.seek(0, os.SEEK_END) - _SAID, 0))
                raise tool_error(name, status, said.read().decode("utf-8", "replace"))
            return bytes(found)


def _parse_version(text: str) -> tuple[str, tuple[int, ...]] | None:
    match = re.search(r"(?:^|[^\w.])v?(\d+(?:\.\d+)+)", text) or re.search(r"(?:^|\s)(\d+)(?:\s|$)", text)
    return (match[1], tuple(map(int, match[1].split(".")))) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The version of a program, as text and numbers, or what it said instead."""

    text: str = ""
    numbers: tuple[int, ...] = ()
    trouble: str | None = None
    missing: bool = False


@functools.cache
def _ask(requirement: Requirement, prefix: tuple[str, ...]) -> _Answer:
    """Ask a tool for its version."""
    try:
        result = ask(
            [*prefix, requirement.name, *requirement.version_argv],
            stderr=subprocess.STDOUT,
            # Nix does not start where it is somebody else's, as that of sudo or of a container's other user is.
            env={"HOME": NO_HOME},
        )
    except FileNotFoundError:
        return _Answer(trouble="there is none", missing=True)
    except OSError as error:
        return _Answer(trouble=error.strerror or str(error))
    said = printable((result.stdout.strip().splitlines() or [f"nothing, and ended with {result.returncode}"])[-1])
    # A loader that misses a library names one with a version, too (it ends with 127), as may who is killed.
    if not 0 <= result.returncode < _CANNOT_EXECUTE or (version := _parse_version(result.stdout)) is None:
        return _Answer(trouble=said)
    return _Answer(text=version[0], numbers=version[1])


def _host_tool(requirement: Requirement) -> Tool | None:
    found = _ask(requirement, ())
    if found.trouble is not None or found.numbers < requirement.minimum:
        return None
    minimum = ".".join(map(str, requirement.minimum))
    return Tool(name=requirement.name, version=found.text, from_host=True, why=f"the host's is {minimum} or newer")


def _host_refusal(requirement: Requirement) -> str:
    """Say why the host's tool is not used."""
    found = _ask(requirement, ())
    if found.missing:
        return "the host has none"
    if found.trouble is not None:
        return f"the host's does not run: {found.trouble}"
    if found.numbers >= requirement.minimum:
        return f"the host's {found.text} would do, but not all of its {requirement.group} tools"
    minimum = ".".join(map(str, requirement.minimum))
    return f"the host's {found.text} is older than {minimum} ({requirement.why})"


def check_architecture() -> None:
    """Raise HostError on a host of another architecture than machines have."""
    if (machine := platform.machine()) not in GUEST.uname:
        raise HostError(
            f"this host is {machine}: vmtests boots {GUEST.shown} images, on {GUEST.shown} Linux only",
            hint=f"use a machine that is {GUEST.shown}, or --vm-target=gce",
        )


def check_processes() -> None:
    """Raise HostError where /proc does not tell of this process: tools find themselves by it, or wait for ever."""
    try:
        own = os.readlink("/proc/self")  # noqa: PTH115 - it is compared as text
    except OSError:
        own = ""
    if own != str(os.getpid()):
        raise HostError(
            "/proc is not there, or is that of another process namespace",
            hint="mount -t proc proc /proc, as containers do (unshare --mount-proc)",
        )


def _host_qemu() -> Path | None:
    program = shutil.which(GUEST.qemu, path=search_path())
    return None if program is None else Path(program).resolve()


def host_firmware() -> tuple[Path, ...]:
    """Return where the descriptors of the host's firmware may be: in the usual place, and beside its QEMU."""
    program = _host_qemu()
    beside = () if program is None else (program.parent.parent / "share/qemu/firmware",)
    return tuple(dict.fromkeys((Path("/usr/share/qemu/firmware"), *beside)))


@functools.cache
def find() -> Toolbox:
    """Find every tool, making the tools tree when the host's own are not all good enough.

    QEMU and the firmware come from one place too. Raises HostError when the tree is needed and cannot be made, and at
    once on a host of another architecture.
    """
    check_architecture()
    check_processes()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        on_host = dict(zip((item.name for item in REQUIREMENTS), pool.map(_host_tool, REQUIREMENTS), strict=True))
    spoilt = {requirement.group for requirement in REQUIREMENTS if on_host[requirement.name] is None}
    if not any(directory.is_dir() for directory in host_firmware()):
        spoilt.add("machine")
    found = {
        requirement.name: tool
        for requirement in REQUIREMENTS
        if (tool := on_host[requirement.name]) is not None
        and (requirement.group is None or requirement.group not in spoilt)
    }
    if len(found) == len(REQUIREMENTS):
        return Toolbox(found, None)
    tree = tools_tree()
    wanted = [requirement for requirement in REQUIREMENTS if requirement.name not in found]
    prefix = tuple(sandbox(tree))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(lambda requirement: _ask(requirement, prefix), wanted))
    for requirement, answer in zip(wanted, answers, strict=True):
        if answer.trouble is not None:
            check(tree.parent)  # the cache may be mounted otherwise than when the tree was made
            raise HostError(
                f"{requirement.name} of the tools tree does not run: {answer.trouble}",
                hint=hint_of(answer.trouble) or f"remove {tree} to have it made again",
            )
        found[requirement.name] = Tool(
            name=requirement.name, version=answer.text, from_host=False, why=_host_refusal(requirement)
        )
    return Toolbox(found, tree)


def tools_tree() -> Path:
    """Return the tools tree, made now if there is none."""
    packages = [*_TREE_EXTRA, *(requirement.package for requirement in REQUIREMENTS)]
    return make_tree(packages, name="tools", title="tools tree (Debian 13, about 130 MB to fetch)")
