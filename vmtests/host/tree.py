"""Debian trees in the cache, unpacked by mmdebstrap without running one maintainer script."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from vmtests import progress
from vmtests.errors import HostError
from vmtests.host.architecture import GUEST
from vmtests.host.mirror import SUITE, failure
from vmtests.host.place import check
from vmtests.host.sandbox import NO_SPACE, Sandboxed, ask, guarded, tool_env
from vmtests.resources import cache_dir, fixture

MINIMUM = (1, 3)
"""The oldest mmdebstrap that this was tried with, Debian 12's."""


def unpack_debian(target: Path, packages: Sequence[str], title: str) -> None:
    """Unpack Debian packages and all that they depend on into `target`, made anew.

    Nothing is configured and no maintainer script runs. What an interrupted run has fetched is used again.
    `VMTESTS_MIRROR` (a mirror's address, or a line of sources.list) overrides mmdebstrap's own choice; signatures are
    checked with Debian's own keys, which are part of vmtests: other distributions' copies of them may be too old.
    Raises HostError.
    """
    _check_mmdebstrap()
    downloads = target.with_name(f"{target.name}.downloads")
    downloads.mkdir(exist_ok=True)
    _clear(target, downloads)  # what a killed run left
    mirror = os.environ.get("VMTESTS_MIRROR")
    put_back = f'find {shlex.quote(str(downloads))} -name "*.deb" -exec mv -t "$1/var/cache/apt/archives" {{}} +'
    command = [
        *guarded(),
        *("mmdebstrap", "--variant=extract", "--mode=chrootless", "--format=directory"),
        f"--architectures={GUEST.debian}",
        # In this mode maintainer scripts, of which `extract` runs none, would touch the host.
        *("--skip=check/chrootless", "--skip=check/signed-by", f"--keyring={fixture('keys')}"),
        "--aptopt=APT::Install-Recommends false",
        # The user _apt may not see our keys and the cache, which may be below /root.
        *(['--aptopt=APT::Sandbox::User "root"'] if os.geteuid() == 0 else []),
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook={put_back}",
        f"--include={','.join(packages)}",
    ]
    tail: deque[str] = deque(maxlen=40)
    with (
        progress.step(title) as running,
        _settings_of_host() as settings,
        Sandboxed[str](
            [*command, *settings, *(SUITE, os.fspath(target), *([mirror] if mirror else []))],
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
            if any(NO_SPACE in line for line in tail):
                shutil.rmtree(downloads, ignore_errors=True)
            raise failure(title, list(tail))
    shutil.rmtree(downloads, ignore_errors=True)


@contextlib.contextmanager
def _settings_of_host() -> Iterator[list[str]]:
    """Give mmdebstrap's options with what this host's apt knows of proxies and certificates (apt.conf(5)).

    They are in a file: a proxy's address may have a password.
    """
    try:
        said = ask(["apt-config", "dump", "Acquire"]).stdout
    except OSError:
        said = ""
    lines = [f"{line}\n" for line in said.splitlines() if re.match(r"Acquire::https?::", line)]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".conf") as file:
        file.writelines(lines)
        file.flush()
        yield [f"--aptopt={file.name}"] if lines else []


def _clear(target: Path, downloads: Path) -> None:
    """Remove a half-made tree; the packages that were fetched whole are kept for the next try."""
    for package in target.glob("var/cache/apt/archives/*.deb"):
        package.replace(downloads / package.name)
    shutil.rmtree(target, ignore_errors=True)


def _check_mmdebstrap() -> None:
    try:
        said = ask(["mmdebstrap", "--version"]).stdout
    except OSError as error:
        raise HostError(
            f"mmdebstrap cannot be run: {error.strerror}", hint="make host, or: apt-get install mmdebstrap"
        ) from error
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is not None and (int(found[1]), int(found[2])) < MINIMUM:
        least = ".".join(map(str, MINIMUM))
        raise HostError(
            f"mmdebstrap {found[0]} is older than {least}",
            hint="a newer one is a script without dependencies of its own: install Debian 12's package, or newer",
        )


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
    check(place.parent)
    with FileLock(f"{place}.lock"):
        if place.is_dir():
            return place
        partial = place.with_name(f"{place.name}.partial")
        unpack_debian(partial, packages, title)
        partial.rename(place)
    return place
