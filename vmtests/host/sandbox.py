"""How a program is started: in the tools tree or on the host itself, so that it ends when we end.

With bubblewrap, in a process namespace that dies with its parent (bwrap(1), `--die-with-parent`, `--unshare-pid`);
where the host does not let it make one (a container, a chroot, no user namespaces for an ordinary user), under two
watchers (`supervise`), and a tree's programs through their own loader (`relocate`).
"""

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, AnyStr

from vmtests.errors import HostError, hint_of
from vmtests.host import relocate, supervise
from vmtests.host.place import free
from vmtests.resources import cache_dir
from vmtests.sizes import MIB, format_size
from vmtests.text import printable

NO_SPACE = "No space left"  # strerror(ENOSPC)
_LITTLE = 64 * MIB
_NO_REASON = re.compile("exiting now|Exiting with failure status")  # make(1) and tar(1) say why one line earlier
_TAIL = 64 << 10  # bytes of a tool's standard error in which that is looked for
_LOOK_SECONDS = 1.0  # between two looks

NO_HOME = "/nonexistent"
"""A home directory that nobody has, Debian's word for it: programs that ask for one start, and find nothing."""

# What else tells programs what to do: a language, the options of an archive, how many columns to draw in, of which
# systemd-repart asserts that they are two. What they make is as we order it, whoever asks.
_ORDERS = (
    *("LC_", "LANG", "PYTHON", "PERL", "NIX_", "SYSTEMD_", "MKE2FS_", "E2FS", "MTOOLS"),
    *("TAR_OPTIONS", "GZIP", "PIGZ", "XZ_", "ZSTD_", "POSIXLY_CORRECT", "SOURCE_DATE_EPOCH", "COLUMNS", "LINES"),
)

# What a program needs of the environment to start.
_BARE = frozenset({"PATH", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD"})

_TREE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PATH = f"/usr/local/sbin:/usr/local/bin:{_TREE_PATH}"
_STORES = ("/nix/store/", "/gnu/store/")
_DIES_WITH_US = ("bwrap", "--die-with-parent", "--unshare-pid")
# Where the first process of the namespace sleeps (proc_pid_stat(5)), it has asked to be told (PR_SET_PDEATHSIG).
_GATE = (
    'while read -r _ _ state _ </proc/1/stat && [ "$state" != S ]; do :; done; '
    'printf . >&0; read -r _ && exec "$@" </dev/null'
)
_SETUP_SECONDS = 60.0  # in which a sandbox is made
_HOST = ("--dev-bind", "/", "/", "--proc", "/proc")
# Of a host's /etc what a program needs to start, and to resolve names: not its secrets.
_PUBLIC_ETC = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "qemu",
    "resolv.conf",
    "hosts",
    "nsswitch.conf",
)
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
_INSTALLED = ("bin", "sbin", "lib", "lib64", "libexec", "share/qemu", "Cellar", "opt")  # the last two of Homebrew
_EMPTY = ("/tmp", "/var/tmp")  # noqa: S108 - its own
_TREE_BINDS_NOT = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev"}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a program runs as that root has started: a number, also its group's, and further groups."""

    number: int
    groups: tuple[int, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """What is put in front of a command line that runs as this user, and never gets a capability again."""
        groups = f"--groups={','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        ids = (f"--reuid={self.number}", f"--regid={self.number}", groups)
        return ("setpriv", *ids, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a program sees of the host's files, besides the programs and libraries of its own system.

    It has no capability, also as root, and a `/tmp` of its own. The paths are as outside, and have to exist. With
    `user` it runs as that one; only root may ask for that, where `demotion_refusal` says nothing. Without `network` it
    has none, nor anybody's abstract sockets (unix(7)), where the host makes network namespaces.
    """

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    user: User | None = None
    network: bool = True


class Sandboxed(subprocess.Popen[AnyStr]):
    """A process of a command line that begins with `sandbox`; it has a process group of its own, which `kill` kills.

    Killed in its first milliseconds, bubblewrap alone would leave its child, which waits for it for ever. If we end
    then, that child goes on without us: it asks late to be told of bubblewrap's end. So its program begins when that
    is done and we answer it; one that is to read something ends with that.
    """

    def __init__(self, argv: Sequence[str], **options: Any) -> None:
        if _DIES_WITH_US[0] not in argv or options.get("stdin") != subprocess.DEVNULL:
            super().__init__(argv, process_group=0, **options)
            return
        split: int = argv.index("--") + 1
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                gated = [*argv[:split], "sh", "-c", _GATE, "sh", *argv[split:]]
                super().__init__(gated, process_group=0, **{**options, "stdin": theirs})
            self._answer(ours)

    def _answer(self, program: socket.socket) -> None:
        """Wait until the program is there, and let it begin."""
        try:
            program.settimeout(_SETUP_SECONDS)
            if program.recv(1):  # nothing, where no sandbox was made
                program.send(b"\n")
        except OSError:
            self.kill()
        except BaseException:
            self.kill()
            self.wait()
            raise

    def kill(self) -> None:
        """End all of it at once; returns without waiting."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class ToolError(HostError):
    """A tool ended with an error; `stderr` holds its last lines."""

    def __init__(self, message: str, *, hint: str | None = None, stderr: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr


def run_in(
    root: Path,
    command: Sequence[str],
    *,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run `command` in a tree, or on the host where `root` is `/`, and return its standard output.

    It runs in the directory `cwd`, in ours where none is given. Raises ToolError, as `Toolbox.run` does.
    """
    with words() as said:
        with Sandboxed[str](
            [*sandbox(root), *([] if cwd is None else ["env", f"--chdir={cwd}"]), *command],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            encoding="utf-8",
            errors="replace",
            env=tool_env(env),
        ) as process:
            try:
                if stdin is not None and process.stdin is not None:
                    threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True).start()
                    process.stdin = None
                stdout = _communicate(process, said.fileno())
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        stderr = said.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise tool_error(command[0], process.returncode, stderr)
    return stdout


def words() -> IO[bytes]:
    """Make a file for what a tool of ours says. It is in memory: on a full disk nobody could say that it is full."""
    return os.fdopen(os.memfd_create("words"), "w+b")


def _feed(pipe: IO[str], text: str) -> None:
    """Write all that a program is to read; one that ends before that has read enough.

    Popen.communicate() that is called again after its timeout forgets what it had not written (CPython 3.11).
    """
    with contextlib.suppress(OSError), pipe:
        pipe.write(text)


def _communicate(process: subprocess.Popen[str], stderr: int) -> str:
    """Return what `process` wrote, and end it when it says that the disk is full and does not end by itself.

    mkfs.erofs 1.8 waits for its worker threads for ever when one of them cannot write.
    """
    full = False
    while True:
        try:
            return process.communicate(timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if full:
                process.kill()
            full = NO_SPACE.encode() in os.pread(stderr, _TAIL, max(os.fstat(stderr).st_size - _TAIL, 0))


def tool_error(name: str, returncode: int, stderr: str) -> ToolError:
    """Make the error of a tool that ended with `returncode`: its last words, or those that tell what the host lacks.

    Not all of them say why they could not write (mkfs.vfat): where little is free, that is told too.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not _NO_REASON.search(line)]
    told = next((line for line in reversed(lines) if hint_of(line)), lines[-1] if lines else "no message")
    hint = hint_of(told)
    if hint is None and (little := _little()) is not None:
        told, hint = f"{told}; {little}", hint_of(NO_SPACE)
    return ToolError(f"{name} ended with {returncode}: {told}", hint=hint, stderr="\n".join(lines[-20:]))


def _little() -> str | None:
    """Say how much is free where tools write, if that is little."""
    for find in (cache_dir, lambda: Path(tempfile.gettempdir()), Path.cwd):
        with contextlib.suppress(OSError, HostError):
            place = find()
            if (room := free(place)) is not None and room < _LITTLE:
                return f"{format_size(room)} free in {place}"
    return None


def tool_env(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment for tools: the caller's without `_ORDERS`, and `search_path` for a PATH.

    Without a home directory, as a service of systemd's or cron may be, Nix does not start.
    """
    own = {key: value for key, value in os.environ.items() if not key.startswith(_ORDERS)}
    return {
        **own,
        "HOME": own.get("HOME") or NO_HOME,
        "LC_ALL": "C.UTF-8",
        "PATH": search_path(),
        **(extra or {}),
    }


def bare_env() -> dict[str, str]:
    """Return the environment for what works on a guest's, or somebody else's, data.

    Whoever takes it over finds none of the tokens and passwords that CI keeps in variables.
    """
    return {**{key: value for key, value in tool_env().items() if key in _BARE}, "HOME": NO_HOME}


def ask(
    command: Sequence[str], *, stderr: int = subprocess.PIPE, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command line that is told nothing to its end; return how it ended and what it said, whatever it said.

    `stderr` is as for subprocess.run, `env` goes with `tool_env`. Raises OSError where it cannot be run.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        errors="replace",
        env=tool_env(env),
        check=False,
    )


def search_path() -> str:
    """Return the caller's directories that a store of Nix has, the system's, and the caller's others.

    Who puts packages of a store on the search path (a wrapper, `nix shell`) means these, and not an older system's;
    any other directory of the caller's has the tools on hosts without the usual ones only. Those of a store have their
    real names: a profile's, as /run/current-system/sw/bin, is not there for a program with a `View`.
    """
    own = list(filter(None, os.environ.get("PATH", "").split(":")))
    real = {directory: os.path.realpath(directory) for directory in own}
    stored = dict.fromkeys(place for place in real.values() if place.startswith(_STORES))
    return ":".join([*stored, SYSTEM_PATH, *(directory for directory in own if real[directory] not in stored)])


def seen_with(program: Path) -> tuple[Path, ...]:
    """Return what a program of this host needs besides what every `View` has, as one from /opt or a home does.

    That is what was installed with it, but of the directory above its `bin` the usual parts only: ~/.local has keys.
    """
    prefixes = dict.fromkeys(place.parent.parent for place in (program.absolute(), program.resolve()))
    elsewhere = [prefix for prefix in prefixes if len(prefix.parts) > 1 and prefix.parts[1] not in _SYSTEM]
    return tuple(path for prefix in elsewhere for name in _INSTALLED if (path := prefix / name).is_dir())


@functools.cache
def refusal() -> str | None:
    """Return why bubblewrap makes no sandbox here, in its own words; None where it does."""
    return _refused(_bubblewrap(Path("/")))


@functools.cache
def demotion_refusal(root: Path, user: int) -> str | None:
    """Return why root cannot have a program of the tree `root` run as `user`; None where it can.

    A container may know few users (user_namespaces(7)), bubblewrap may be older than 0.5, setpriv(1) may be missing.
    """
    return _refused(_confined(root, View(user=User(number=user))))


@functools.cache
def _makes_networks() -> bool:
    return _refused([*_begin(), "--unshare-net", *_HOST, "--"]) is None


def _refused(command: Sequence[str]) -> str | None:
    try:
        result = ask([*command, "true"])
    except OSError as error:
        return f"bwrap cannot be run: {error.strerror}"
    if result.returncode == 0:
        return None
    return printable((result.stderr.strip().splitlines() or [f"bwrap ended with {result.returncode}"])[-1])


def is_root() -> bool:
    """Whether programs find themselves to be root: otherwise files that they make for an image are the caller's."""
    return os.geteuid() == 0 or refusal() is None


def sandbox(root: Path, view: View | None = None) -> list[str]:
    """Return what is put in front of a command line to run it in the tree `root`, where `/` is the host itself.

    All paths of the host are as outside, but those of /usr and /etc that a system has; with `view` there is nothing
    else. The last word is `--`.
    A host that refuses namespaces cannot hide anything: there `view` changes nothing.
    """
    if refusal() is None:
        return _bubblewrap(root) if view is None else _confined(root, view)
    return watched(*(() if root == Path("/") else ("--path", os.fspath(relocate.programs(root)))))


def guarded() -> list[str]:
    """Return what is put in front of a command line of the host that has to end with us and knows who it runs as."""
    return watched() if refusal() is not None else [*_DIES_WITH_US, *_HOST, "--"]


def watched(*options: str) -> list[str]:
    """Return what is put in front of somebody's own command line, which has to end with us and may do all they may.

    Nothing in a namespace may ask sudo(8) for more. `options` are those of `supervise`.
    """
    return [sys.executable, "-I", "-S", os.fspath(supervise.__file__), *options, "--"]


def _confined(root: Path, view: View) -> list[str]:
    """Return the bubblewrap command line that enters `root` and shows `view` only."""
    command = [*_begin(), "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    if not view.network and _makes_networks():
        command += ["--unshare-net"]
    if view.user is not None:
        # What setpriv needs, and gives up with all else.
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    if root == Path("/"):
        for name in _SYSTEM:
            command += _as_outside(Path("/", name), "--ro-bind-try")
        command += ["--dir", "/etc"]
        for name in _PUBLIC_ETC:
            command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    else:
        command += _tree(root, (*view.readable, *view.writable))
    command += ["--proc", "/proc", "--dev", "/dev"]
    for empty in _EMPTY:
        command += [*(() if view.user is None else ("--perms", "1777")), "--tmpfs", empty]
    for device in view.devices:
        command += ["--dev-bind", os.fspath(device), os.fspath(device)]
    paths = (*view.readable, *view.writable)
    # bubblewrap would make those that are missing for itself alone, and another user is to pass.
    for parent in sorted({parent for path in paths for parent in path.absolute().parents}):
        command += ["--dir", os.fspath(parent)]
    for paths, bind in ((view.readable, "--ro-bind"), (view.writable, "--bind")):
        for path in paths:
            outside = os.fspath(path.absolute())
            command += ["--dev-bind" if path.is_block_device() else bind, outside, outside]
    return [*command, "--chdir", "/", "--", *(() if view.user is None else view.user.argv)]


def _begin() -> list[str]:
    """Return how bubblewrap begins: as root the caller is root outside too, otherwise its one id is mapped to root."""
    user = [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "0", "--gid", "0"]
    return [*_DIES_WITH_US, *user]


def _tree(root: Path, paths: Sequence[Path]) -> list[str]:
    """Return bubblewrap's options that put the programs of a tree into their places.

    `paths` have to be seen; where they are below /usr or /etc, room is made for them. Raises HostError where one is
    behind something that the tree has.
    """
    command = []
    ours = set()
    for path in paths:
        if (entry := _entry(path)) is None:
            continue
        if path != entry and _has(root, entry):
            raise HostError(
                f"programs of the tools tree cannot see {path}",
                hint="have images, results and VMTESTS_CACHE, and work, outside of /usr and /etc",
            )
        ours.add(entry.parts[1])
    for name in ("usr", "etc"):
        if name in ours:
            command += _in_parts(root / name, Path("/", name))
        else:
            command += ["--ro-bind", f"{root}/{name}", f"/{name}"]
    for name in ("bin", "sbin", "lib", "lib64"):
        command += ["--symlink", f"usr/{name}", f"/{name}"]
    # The tree's resolv.conf is that of the day it was made; QEMU's user network wants today's.
    command += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    return [*command, "--setenv", "PATH", _TREE_PATH]


def _in_parts(directory: Path, place: Path) -> list[str]:
    """Return bubblewrap's options that put all in `directory` into `place`, a directory to which more can be added."""
    command = []
    for entry in sorted(directory.iterdir()):
        at = os.fspath(place / entry.name)
        if entry.is_symlink():
            command += ["--symlink", os.fspath(entry.readlink()), at]
        elif entry.is_file() or any(entry.iterdir()):
            command += ["--ro-bind", os.fspath(entry), at]
    return command


def _as_outside(path: Path, bind: str) -> list[str]:
    """Return bubblewrap's options for a directory at the top that may be a symbolic link."""
    if path.is_symlink():
        return ["--symlink", os.fspath(path.readlink()), os.fspath(path)]
    return [bind, os.fspath(path), os.fspath(path)] if path.is_dir() else []


def _bubblewrap(root: Path) -> list[str]:
    """Return the bubblewrap command line that enters `root`, with all paths of the host but /usr and /etc."""
    command = _begin()
    if root == Path("/"):
        return [*command, *_HOST, "--"]
    here = _cwd()
    beside = _beside(root, here)
    command += [*_tree(root, (*beside, here, root)), "--proc", "/proc", "--dev-bind", "/dev", "/dev"]
    for entry in sorted(Path("/").iterdir()):
        if entry.name in _TREE_BINDS_NOT:
            continue
        command += _as_outside(entry, "--bind-try")
    for entry in beside:
        command += _as_outside(entry, "--bind-try")
    return [*command, "--chdir", os.fspath(here), "--"]


def _beside(root: Path, here: Path) -> list[Path]:
    """Return what is in the host's /usr, and what of /etc is needed, where the tree has nothing of that name.

    Images of containers have people work in /usr/src/app, NixOS in /etc/nixos.
    """
    needed = [entry for path in (here, root) if (entry := _entry(path)) is not None]
    return sorted({entry for entry in (*Path("/usr").iterdir(), *needed) if not _has(root, entry)})


def _entry(path: Path) -> Path | None:
    """Return that directory or file in /usr or /etc that `path` is, or is below."""
    parts = path.absolute().parts
    return Path(*parts[:3]) if parts[1:2] in {("usr",), ("etc",)} and parts[2:] else None


def _has(root: Path, place: Path) -> bool:
    """Whether the tree has more than an empty directory at `place`."""
    entry = root / place.relative_to("/")
    return entry.is_symlink() or entry.is_file() or (entry.is_dir() and any(entry.iterdir()))


def _cwd() -> Path:
    """Return the working directory, `/` where somebody has removed it."""
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd()
    return Path("/")
