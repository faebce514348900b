"""External tools: the host's own when they are good enough, else those of a tools tree.

The *tools tree* is an unpacked Debian tree in the cache, made once by `mmdebstrap` without root, without user
namespaces and without running one maintainer script (`--variant=extract --mode=chrootless`), and entered with
bubblewrap. Every tool runs in a process namespace that ends with its parent, so nothing that vmtests starts can
outlive it (bwrap(1), `--die-with-parent`, `--unshare-pid`).
"""

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vmtests import progress
from vmtests.errors import HostError
from vmtests.resources import cache_dir

SUITE = "trixie"
"""The Debian release that the tools tree and the reference image are made of."""

_MAKE_NEEDS = "make, or: apt-get install mmdebstrap bubblewrap debian-archive-keyring"


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


_QEMU_WHY = "QEMU 7.2 corrupts guests without KVM"
REQUIREMENTS = (
    Requirement(name="qemu-system-x86_64", package="qemu-system-x86", minimum=(8, 2), why=_QEMU_WHY, group="machine"),
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
    Requirement(name="sfdisk", package="fdisk", minimum=(2, 38), why="writes and sorts the table", group="build"),
    Requirement(name="dumpe2fs", package="e2fsprogs", minimum=(1, 46), why="reads a superblock", version_argv=("-V",)),
    Requirement(name="e2fsck", package="e2fsprogs", minimum=(1, 46), why="replays a journal", version_argv=("-V",)),
    Requirement(name="debugfs", package="e2fsprogs", minimum=(1, 46), why="reads unmounted", version_argv=("-V",)),
    Requirement(name="journalctl", package="systemd", minimum=(252,), why="reads compact journals"),
    Requirement(name="nix-store", package="nix-bin", minimum=(2, 20), why="registers store paths"),
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
_NO_SPACE = "No space left"  # strerror(ENOSPC)
_TAIL = 64 << 10  # bytes of a tool's standard error in which that is looked for
_LOOK_SECONDS = 1.0  # between two looks
_TREE_EXTRA = ("base-files", "bash", "coreutils", "dash", "ovmf", "systemd-boot-efi", "systemd-ukify")

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TREE_BINDS_NOT = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that was found: its version, whether it is the host's, and why it was chosen."""

    name: str
    version: str
    from_host: bool
    why: str


class ToolError(HostError):
    """A tool ended with an error; `stderr` holds its last lines."""

    def __init__(self, message: str, *, hint: str | None = None, stderr: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr


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

    def argv(self, name: str, *args: str | os.PathLike[str]) -> list[str]:
        """Return the command line that runs a tool; all paths of the host but /usr and /etc are as outside."""
        return [*sandbox(self.root(name)), name, *(os.fspath(arg) for arg in args)]

    def run(
        self,
        name: str,
        *args: str | os.PathLike[str],
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        mounts: Sequence[str] = (),
    ) -> str:
        """Run a tool to its end and return its standard output.

        `mounts` are further bubblewrap arguments, any number of them. Raises ToolError with the last line that the
        tool wrote on standard error.
        """
        return run_in(self.root(name), [name, *(os.fspath(arg) for arg in args)], stdin=stdin, env=env, mounts=mounts)


def run_in(
    root: Path,
    command: Sequence[str],
    *,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    mounts: Sequence[str] = (),
) -> str:
    """Run `command` in a tree, or on the host where `root` is `/`, and return its standard output.

    Raises ToolError, as `Toolbox.run` does.
    """
    prefix = sandbox(root)
    with tempfile.TemporaryFile() as arguments, tempfile.TemporaryFile() as said:
        # A store has thousands of paths, and a command line has room for 2 MiB (execve(2)): mounts go by file.
        arguments.write(b"".join(item.encode() + b"\0" for item in mounts))
        arguments.seek(0)
        with subprocess.Popen(
            [*prefix[:-1], "--args", str(arguments.fileno()), "--", *command],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            encoding="utf-8",
            errors="replace",
            env=tool_env(env),
            pass_fds=(arguments.fileno(),),
        ) as process:
            try:
                stdout = _communicate(process, stdin, said.fileno())
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        stderr = said.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise tool_error(command[0], process.returncode, stderr)
    return stdout


def _communicate(process: subprocess.Popen[str], stdin: str | None, stderr: int) -> str:
    """Return what `process` wrote, and end it when it says that the disk is full and does not end by itself.

    mkfs.erofs 1.8 waits for its worker threads for ever when one of them cannot write.
    """
    full = False
    while True:
        try:
            return process.communicate(stdin, timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            stdin = None  # it is on its way
            if full:
                process.kill()
            full = _NO_SPACE.encode() in os.pread(stderr, _TAIL, max(os.fstat(stderr).st_size - _TAIL, 0))


def tool_error(name: str, returncode: int, stderr: str) -> ToolError:
    """Make the error of a tool that ended with `returncode`; a full disk is named as such."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "exiting now" not in line]
    last = lines[-1] if lines else "no message"
    hint = "free some space, or set VMTESTS_CACHE" if _NO_SPACE in stderr else None
    if last.startswith("bwrap:"):
        hint = "vmtests doctor says what is missing; user namespaces must be allowed, or run as root"
    return ToolError(f"{name} ended with {returncode}: {last}", hint=hint, stderr="\n".join(lines[-20:]))


def tool_env(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment for tools: the caller's without a language, and the system's search path in front."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON", "NIX_"))}
    return {
        **own,
        "LC_ALL": "C.UTF-8",
        # The caller's has the tools on hosts without the usual directories, such as NixOS.
        "PATH": f"{_SYSTEM_PATH}:{os.environ.get('PATH', '')}".rstrip(":"),
        **(extra or {}),
    }


def sandbox(root: Path) -> list[str]:
    """Return the bubblewrap command line that enters `root`, where `/` is the host itself.

    The caller is root inside: as root it is root outside too; otherwise a user namespace maps its one id.
    """
    command = ["bwrap", "--die-with-parent", "--unshare-pid"]
    if os.geteuid() != 0:
        command += ["--unshare-user", "--uid", "0", "--gid", "0"]
    if root == Path("/"):
        return [*command, "--dev-bind", "/", "/", "--proc", "/proc", "--"]
    command += ["--ro-bind", f"{root}/usr", "/usr", "--ro-bind", f"{root}/etc", "/etc"]
    for name in ("bin", "sbin", "lib", "lib64"):
        command += ["--symlink", f"usr/{name}", f"/{name}"]
    # The tree's resolv.conf is that of the day it was made; QEMU's user network wants today's.
    command += [
        "--ro-bind-try",
        "/etc/resolv.conf",
        "/etc/resolv.conf",
        "--proc",
        "/proc",
        "--dev-bind",
        "/dev",
        "/dev",
    ]
    for entry in sorted(Path("/").iterdir()):
        if entry.name in _TREE_BINDS_NOT:
            continue
        if entry.is_symlink():
            command += ["--symlink", os.fspath(entry.readlink()), f"/{entry.name}"]
        elif entry.is_dir():
            command += ["--bind-try", f"/{entry.name}", f"/{entry.name}"]
    return [*command, "--chdir", os.fspath(Path.cwd()), "--"]


def _parse_version(text: str) -> tuple[str, tuple[int, ...]] | None:
    match = re.search(r"(?:^|[^\w.])v?(\d+(?:\.\d+)+)", text) or re.search(r"(?:^|\s)(\d+)(?:\s|$)", text)
    return (match[1], tuple(map(int, match[1].split(".")))) if match else None


@functools.cache
def _probe(requirement: Requirement, prefix: tuple[str, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Return the version that a tool prints, as text and numbers; None when it does not run."""
    try:
        result = subprocess.run(
            [*prefix, requirement.name, *requirement.version_argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=tool_env(),
            check=False,
        )
    except OSError:
        return None
    return _parse_version(result.stdout)


def _host_tool(requirement: Requirement) -> Tool | None:
    if (found := _probe(requirement, ())) is None or found[1] < requirement.minimum:
        return None
    minimum = ".".join(map(str, requirement.minimum))
    return Tool(name=requirement.name, version=found[0], from_host=True, why=f"the host's is {minimum} or newer")


def _host_refusal(requirement: Requirement) -> str:
    """Say why the host's tool is not used."""
    if (found := _probe(requirement, ())) is None:
        return "the host has none"
    if found[1] >= requirement.minimum:
        return f"the host's {found[0]} would do, but not all of its {requirement.group} tools"
    minimum = ".".join(map(str, requirement.minimum))
    return f"the host's {found[0]} is older than {minimum} ({requirement.why})"


def unpack_debian(target: Path, packages: Sequence[str], title: str) -> None:
    """Unpack Debian packages and all that they depend on into `target`, made anew.

    Nothing is configured and no maintainer script runs. What an interrupted run has fetched is used again.
    `VMTESTS_MIRROR` (a mirror's address, or a line of sources.list) overrides mmdebstrap's own choice. Raises
    HostError.
    """
    if missing := [name for name in ("mmdebstrap", "bwrap") if shutil.which(name) is None]:
        raise HostError(f"{' and '.join(missing)} not found on this host", hint=_MAKE_NEEDS)
    downloads = target.with_name(f"{target.name}.downloads")
    downloads.mkdir(exist_ok=True)
    _clear(target, downloads)  # what a killed run left
    mirror = os.environ.get("VMTESTS_MIRROR")
    put_back = f'find {shlex.quote(str(downloads))} -name "*.deb" -exec mv -t "$1/var/cache/apt/archives" {{}} +'
    command = [
        *("bwrap", "--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc", "--"),
        *("mmdebstrap", "--variant=extract", "--mode=chrootless", "--format=directory"),
        "--aptopt=APT::Install-Recommends false",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook={put_back}",
        f"--include={','.join(packages)}",
        *(SUITE, os.fspath(target), *([mirror] if mirror else [])),
    ]
    tail: deque[str] = deque(maxlen=40)
    with (
        progress.step(title) as running,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=tool_env(),
        ) as process,
    ):
        try:
            assert process.stderr is not None
            for line in process.stderr:
                tail.append(line.strip())
                running.note(line)
            process.wait()
        finally:
            if process.returncode != 0:
                process.kill()
                process.wait()
                _clear(target, downloads)
        if process.returncode != 0:
            if any(_NO_SPACE in line for line in tail):
                shutil.rmtree(downloads, ignore_errors=True)
            raise _unpack_error(title, tail)
    shutil.rmtree(downloads, ignore_errors=True)


def _clear(target: Path, downloads: Path) -> None:
    """Remove a half-made tree; the packages that were fetched whole are kept for the next try."""
    for package in target.glob("var/cache/apt/archives/*.deb"):
        package.replace(downloads / package.name)
    shutil.rmtree(target, ignore_errors=True)


def _unpack_error(title: str, tail: Sequence[str]) -> HostError:
    text = "\n".join(tail)
    errors = [line.removeprefix("E: ").removeprefix("Err:") for line in tail if line.startswith(("E:", "Err:"))]
    if _NO_SPACE in text:
        return HostError(f"{title}: the disk is full", hint="free some space, or set VMTESTS_CACHE")
    if re.search(r"Could not resolve|Could not connect|Temporary failure|Unable to connect|Failed to fetch", text):
        return HostError(
            f"{title}: no Debian mirror can be reached",
            hint="a network is needed once; VMTESTS_MIRROR names another mirror",
        )
    reason = (errors or list(tail) or ["no message"])[0]
    return HostError(f"{title}: {reason}", hint="VMTESTS_MIRROR names another mirror")


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def make_tree(packages: Sequence[str], *, name: str, title: str) -> Path:
    """Return the unpacked tree of `packages` in the cache, made now if there is no whole one.

    The tree is made beside its place and renamed, under a lock: a tree that exists is whole.
    """
    packages = sorted(set(packages))
    place = cache_dir() / "trees" / f"{name}-{SUITE}-{_digest(packages, os.geteuid() == 0)}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if place.is_dir():
            return place
        partial = place.with_name(f"{place.name}.partial")
        unpack_debian(partial, packages, title)
        partial.rename(place)
    return place


def host_firmware() -> tuple[Path, ...]:
    """Return where the descriptors of the host's firmware may be: in the usual place, and beside its QEMU."""
    program = shutil.which("qemu-system-x86_64", path=tool_env()["PATH"])
    beside = () if program is None else (Path(program).resolve().parent.parent / "share/qemu/firmware",)
    return tuple(dict.fromkeys((Path("/usr/share/qemu/firmware"), *beside)))


@functools.cache
def find() -> Toolbox:
    """Find every tool, making the tools tree when the host's own are not all good enough.

    QEMU and the firmware come from one place too. Raises HostError when the tree is needed and cannot be made.
    """
    on_host = {requirement.name: _host_tool(requirement) for requirement in REQUIREMENTS}
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
    for requirement in REQUIREMENTS:
        if requirement.name in found:
            continue
        version = _probe(requirement, tuple(sandbox(tree)))
        if version is None:
            raise HostError(
                f"{requirement.name} of the tools tree does not run",
                hint=f"vmtests doctor says more; remove {tree} to have it made again",
            )
        found[requirement.name] = Tool(
            name=requirement.name, version=version[0], from_host=False, why=_host_refusal(requirement)
        )
    return Toolbox(found, tree)


def tools_tree() -> Path:
    """Return the tools tree, made now if there is none."""
    packages = [*_TREE_EXTRA, *(requirement.package for requirement in REQUIREMENTS)]
    return make_tree(packages, name="tools", title="tools tree (Debian 13, about 130 MB to fetch)")
