"""Writes a store that is compressed: tar(1) streams the store paths into mkfs.erofs(1).

Neither an argument nor a mount is spent on a path, so that their number is free, and no namespace is needed. Why this
way: docs/decisions/0003-store-stream.md.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtests import progress
from vmtests.errors import HostError
from vmtests.host.sandbox import Sandboxed, tool_env, tool_error, words
from vmtests.host.tools import Toolbox
from vmtests.image import erofs, grouping
from vmtests.image.compression import Compression
from vmtests.image.erofstree import KINDS, Tree
from vmtests.image.survey import Totals
from vmtests.image.target import start_writing
from vmtests.sizes import KIB, MIB
from vmtests.text import printable

STORE_TIME = 1
"""Modification time of everything in the store and on the root, in seconds: what Nix gives store paths."""

LINKS = b".links"
"""Nix's local overlay store wants the directory of its links in the layer that it cannot write to."""

_LOOK_SECONDS = 0.2  # between two looks at a running mkfs.erofs
_TAIL = 4 * KIB  # of what was said on standard error
_PIPE_SIZE = MIB
_BLAMELESS = {None, 0, 128 + signal.SIGPIPE}
"""How tar may have ended without a fault of its own: not yet, well, or because mkfs.erofs reads no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The file system to be: its label and UUID, and how it is compressed."""

    label: str
    uuid: str
    compression: Compression


def write(
    file: Path,
    volume: Volume,
    directory: Path,
    names: Sequence[str],
    totals: Totals,
    toolbox: Toolbox,
    running: progress.Step,
) -> int:
    """Write the file system of the entries `names` of `directory` into the new `file`, and return its size in bytes.

    `totals` is what they are in all. Scratch files are beside `file`. Raises ToolError, and HostError when what
    was written is not whole.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as made:
        work = Path(made)
        base = work / "base"
        (base / os.fsdecode(LINKS)).mkdir(parents=True)
        for path in (base, base / os.fsdecode(LINKS)):
            path.chmod(0o755)
        listed = work / "names"
        listed.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in sorted(names)))
        reader = toolbox.argv(
            *("tar", "--create", "--format=gnu", "--sort=name", "--hard-dereference", "--blocking-factor=512"),
            *("--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{STORE_TIME}"),
            *([f"--transform={groups}"] if (groups := grouping.transform(names)) else []),
            *("--directory", os.fspath(base), "."),
            *("--directory", os.fspath(directory)),
            *("--null", "--verbatim-files-from", f"--files-from={listed}"),
        )
        writer = toolbox.argv(
            *("mkfs.erofs", "--quiet", f"-T{STORE_TIME}", "--all-root", f"-L{volume.label}"),
            *(f"-U{volume.uuid}", *volume.compression.arguments(), "--tar=f", "--sort=none"),
            file,
        )
        # What is compressed is first written to a file of its own by mkfs.erofs, in its temporary directory.
        _stream(reader, writer, tool_env({"TMPDIR": os.fspath(work)}), file, totals, running)
    if groups:
        with file.open("rb+") as opened:
            grouping.undo(opened.fileno())
    size = _verified_size(file, totals.inodes + 2)  # the root and .links
    _refuse_special(file)
    return size


def _refuse_special(file: Path) -> None:
    """Raise HostError for a FIFO or device: tar takes what became one after the store was looked at."""
    with file.open("rb") as opened:
        for path, entry in Tree(lambda place, length: os.pread(opened.fileno(), length, place)).walk():
            if entry.kind not in KINDS.values():
                name = printable(path.lstrip("/"))
                raise HostError(f"{name} changed while it was read", hint="build again when it is at rest")


def _stream(
    reader: Sequence[str],
    writer: Sequence[str],
    env: dict[str, str],
    file: Path,
    totals: Totals,
    running: progress.Step,
) -> None:
    """Run `writer` on what `reader` writes, to the end of both; the first that fails ends the other."""
    with words() as reader_said, words() as writer_said:
        source = Sandboxed[bytes](
            reader, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=reader_said, env=env, pipesize=_PIPE_SIZE
        )
        try:
            sink = Sandboxed[bytes](
                writer, stdin=source.stdout, stdout=subprocess.DEVNULL, stderr=writer_said, env=env
            )
            assert source.stdout is not None
            source.stdout.close()
            try:
                _watch(source, sink, writer_said.fileno(), file, totals, running)
            finally:
                sink.kill()
                sink.wait()
            # Nobody reads any more, so that it ends by itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                source.wait(_LOOK_SECONDS)
            ended = source.returncode
        finally:
            source.kill()
            source.wait()
        reader_said.seek(0)
        writer_said.seek(0)
        said = writer_said.read().decode(errors="replace")
        # Half a stream is an error of mkfs.erofs, but the fault of tar.
        if ended not in _BLAMELESS:
            raise tool_error("tar", source.returncode, reader_said.read().decode(errors="replace"))
        # mkfs.erofs 1.8 says that it cannot write, and goes on and exits with 0.
        if sink.returncode > 0 or "<E>" in said:
            raise tool_error("mkfs.erofs", sink.returncode, said)
        if sink.returncode != 0:
            raise tool_error("mkfs.erofs", sink.returncode, said)


def _watch(
    source: subprocess.Popen[bytes],
    sink: subprocess.Popen[bytes],
    said: int,
    file: Path,
    totals: Totals,
    running: progress.Step,
) -> None:
    """Wait for the end of both, or for the first fault of one: mkfs.erofs 1.8 waits for ever for a tar that broke."""
    while True:
        try:
            sink.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            source.wait()
            return
        if source.poll() not in _BLAMELESS or b"<E>" in os.pread(said, _TAIL, max(os.fstat(said).st_size - _TAIL, 0)):
            return
        try:
            start_writing(file)
            running.amount(file.stat().st_blocks * 512, totals.size)
        except FileNotFoundError:
            continue


def _verified_size(file: Path, inodes: int) -> int:
    """Return the bytes of the file system in `file`, which mkfs.erofs 1.8 leaves longer, with a hole at its end."""
    with file.open("rb") as opened:
        superblock = erofs.parse(os.pread(opened.fileno(), MIB, erofs.OFFSET))
    # mkfs.erofs 1.8.6 exits with 0 when it runs out of space.
    if superblock is None or superblock.size > file.stat().st_size or superblock.inodes - superblock.packed != inodes:
        raise HostError(
            "mkfs.erofs did not write a whole file system",
            hint="is the disk full, or did a store path change meanwhile?",
        )
    return superblock.size
