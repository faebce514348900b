"""The image that a Nix flake builds: its `imageScript` is run, and what it prints last is the archive.

`nix run FLAKE#ATTR` (nix3-run(1)) writes the image to the directory it is run in; see nix/modules/image-script.nix.
"""

import re
import shutil
import subprocess
from collections import deque
from pathlib import Path

from vmtests import progress
from vmtests.errors import HostError, ImageError, InputError
from vmtests.host.sandbox import ask, guarded
from vmtests.text import printable

NAME = "nix"
DEFAULT = ".#imageScript"
MINIMUM = (2, 18)
"""The first Nix whose `nix run` takes a package's main program, and that NixOS 26.05 can be evaluated with."""

_PRINTED = "stdout"
_TAIL = 40  # lines of Nix's output that are kept for an error


def parse(name: str) -> str | None:
    """Return the flake's package that `nix` or `nix:FLAKE[#ATTR]` names; None when `name` is no such thing.

    Raises InputError for a name without a flake.
    """
    if name == NAME:
        return DEFAULT
    if not name.startswith(f"{NAME}:"):
        return None
    flake, _, attribute = name.removeprefix(f"{NAME}:").partition("#")
    if not flake:
        raise InputError(f"{name!r} names no flake", hint="--vm-image=nix:FLAKE#ATTR, such as nix:.#imageScript")
    return f"{flake}#{attribute or DEFAULT.partition('#')[2]}"


def build(installable: str, directory: Path) -> Path:
    """Run the flake's program in `directory`, following its output; return the archive that it made there.

    A flake that is a relative path is relative to the current directory. Raises HostError when Nix is missing or too
    old, InputError when there is no such flake or attribute, and ImageError when the image cannot be built.
    """
    nix = _find()
    command = [
        # Nix and what it starts end with us, even after kill -9.
        *guarded(),
        *(nix, "--extra-experimental-features", "nix-command flakes", "run", "-L", _absolute(installable)),
    ]
    tail: deque[str] = deque(maxlen=_TAIL)
    with progress.step(f"nix run {installable}") as running, (directory / _PRINTED).open("wb") as printed:
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise HostError(f"{command[0]} cannot be run: {error.strerror}") from error
        with process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    tail.append(line.rstrip())
                    running.note(line)
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise _error(installable, process.returncode, list(tail))
    return _archive(installable, directory)


def _find() -> str:
    if (nix := shutil.which("nix")) is None:
        raise HostError(
            "nix is not installed on this host",
            hint="https://nixos.org/download; or --vm-image=reference, which needs none",
        )
    try:
        shown = ask([nix, "--version"]).stdout
    except OSError as error:
        raise HostError(f"{nix} cannot be run: {error.strerror}") from error
    found = re.search(r"(\d+)\.(\d+)", shown)
    least = ".".join(map(str, MINIMUM))
    if found is None:
        raise HostError(f"{nix} does not say its version", hint=f"Nix {least} or newer is needed")
    if (int(found[1]), int(found[2])) < MINIMUM:
        raise HostError(f"Nix {found[0]} is too old", hint=f"install {least} or newer")
    return nix


def _absolute(installable: str) -> str:
    flake, _, attribute = installable.partition("#")
    # A name without a slash or dot in front is one of the flake registry's (nix3-flake(1)).
    local = flake.removeprefix("path:")
    if local == flake and not flake.startswith((".", "/")):
        return installable
    place = Path(local).absolute()
    if not (place / "flake.nix").is_file():
        raise InputError(f"{local} has no flake.nix", hint="--vm-image=nix:FLAKE#ATTR names the flake")
    return f"{'path:' if local != flake else ''}{place.resolve()}#{attribute}"


def _error(installable: str, status: int, tail: list[str]) -> HostError | InputError | ImageError:
    text = "\n".join(tail)
    lines = [printable(line.strip(), 300) for line in tail if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = "; ".join(errors[-1:] or lines[-1:] or [f"status {status}"])
    refused = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    if "Failed assertions:" in text and refused:
        return InputError(f"{installable}: {' '.join(refused)}", hint="change the configuration as it says")
    if "does not provide attribute" in text:
        return InputError(f"{installable}: {said}", hint="nix flake show lists what the flake has")
    if "No space left on device" in text:
        return HostError(f"nix run {installable}: the disk is full", hint="free some space, or set VMTESTS_CACHE")
    if re.search(r"unable to download|Could not resolve host|Connection refused", text):
        return HostError(f"nix run {installable}: {said}", hint="Nix has to reach the flake's inputs and its cache")
    if re.search(r"(?:opening lock file|creating directory) .*/nix/.*Permission denied", text):
        return HostError(
            f"nix run {installable}: this user may not write to the Nix store",
            hint="start the Nix daemon (nix-daemon.socket), or run as the owner of /nix",
        )
    return ImageError(f"nix run {installable} ended with {status}: {said}", hint=f"nix run -L {installable} says more")


def _archive(installable: str, directory: Path) -> Path:
    printed = (directory / _PRINTED).read_text(errors="replace").splitlines()
    path = directory / printed[-1] if printed else None
    if path is None or not path.is_file():
        last = printable(printed[-1], 200) if printed else "nothing"
        raise ImageError(
            f"nix run {installable} printed {last!r} last, which is no file",
            hint="the program of an imageScript prints the path of what it made",
        )
    return path
