"""Compressed streams, unpacked piece by piece, with bounded memory."""

import bz2
import lzma
import os
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from vmtests.host.formats import Packing
from vmtests.host.sandbox import Sandboxed, View, bare_env
from vmtests.host.tools import Toolbox
from vmtests.image.check import clean

PIECE = 1 << 20
"""Bytes that are unpacked at a time."""

_INPUT = 1 << 16  # packed bytes that are read at a time; what is left of them is copied at each member and each piece

_MAGICS = {
    b"\x1f\x8b": Packing.GZIP, b"\xfd7zXZ\0": Packing.XZ, b"\x28\xb5\x2f\xfd": Packing.ZSTD, b"BZh": Packing.BZIP2,
    b"\x5d\0\0": "lzma",
}  # fmt: skip
_MEMBERS = {"gz": b"\x1f\x8b", "bz2": b"BZh"}
_XZ_MEMORY = 96 << 20  # bytes; `xz -9` needs 65 MiB to unpack
_ZSTD_MEMORY = "--memory=128MB"


class StreamError(Exception):
    """A stream that is no whole one; the message says what is wrong."""


class Stream(Protocol):
    """What is inside a compressed stream, to be read once from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer at the end; raises StreamError."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def pull(self, data: bytes, limit: int) -> bytes: ...

    @property
    def hungry(self) -> bool: ...


class _Zlib:
    """gzip through zlib, which keeps what it was not asked for."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    def pull(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, limit)


class _Block:
    """xz, lzma and bzip2, whose decompressors keep their input themselves."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    def pull(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(data, limit)


class _Inside:
    """The plain side of a stream, members behind each other included."""

    def __init__(self, file: IO[bytes], packing: str, *, lenient: bool) -> None:
        self._file = file
        self._packing = packing
        self._inner = self._new()
        self._left = b""
        self._ahead = b""  # unpacked already, from `_at` on: a decompressor that is asked for little at a time is slow
        self._at = 0
        self._magic = _MEMBERS.get(packing, b"") if lenient else b""
        self._ended = False

    def _new(self) -> _Decompressor:
        if self._packing == Packing.GZIP:
            return _Zlib()
        if self._packing == Packing.BZIP2:
            return _Block(bz2.BZ2Decompressor())
        form = lzma.FORMAT_XZ if self._packing == Packing.XZ else lzma.FORMAT_ALONE
        return _Block(lzma.LZMADecompressor(form, memlimit=_XZ_MEMORY))

    def read(self, size: int, /) -> bytes:
        found = [self._ahead[self._at : self._at + size]] if self._at < len(self._ahead) else []
        missing = size - sum(map(len, found))
        self._at += size - missing
        try:
            while missing and (piece := self._piece(PIECE)) is not None:
                if piece:
                    found.append(piece[:missing])
                    self._ahead, self._at = piece, len(found[-1])
                    missing -= self._at
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise StreamError(_reason(error)) from error
        return b"".join(found)

    def _piece(self, size: int) -> bytes | None:
        """Return some bytes, which may be none yet; None at the end."""
        if self._ended:
            return None
        if self._inner.eof:
            rest = self._inner.unused_data or self._file.read(_INPUT)
            # Padding behind the last member: zeros (xz(1), and tapes of gzip).
            while rest and not rest.strip(b"\0"):
                rest = self._file.read(_INPUT)
            rest = rest.lstrip(b"\0")
            while rest and len(rest) < len(self._magic) and (more := self._file.read(_INPUT)):
                rest += more
            if not rest or not rest.startswith(self._magic):
                # gzip(1) and bzip2(1) leave out what is behind the last member, as a signature.
                self._ended = True
                return None
            self._inner, self._left = self._new(), rest
        data, self._left = self._left, b""
        if not data and self._inner.hungry and not (data := self._file.read(_INPUT)):
            # Its input may be used up while output still waits.
            if (rest := self._inner.pull(b"", size)) or self._inner.eof:
                return rest
            raise StreamError(f"its {_NAMES[self._packing]} data ends too early")
        return self._inner.pull(data, size)


_NAMES = {"gz": "gzip", "xz": "xz", "zst": "zstd", "bz2": "bzip2", "lzma": "lzma"}


def _reason(error: Exception) -> str:
    if isinstance(error, lzma.LZMAError) and "Memory usage limit" in str(error):
        return f"its dictionary wants more than {_XZ_MEMORY >> 20} MiB of memory"
    text = str(error) or type(error).__name__
    # zlib names its codes; people want the words behind them.
    return clean(text.split(": ", 1)[-1] if text.startswith("Error ") else text)


class _Zstd:
    """The plain side of a zstd process."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    def read(self, size: int, /) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if not data and self._process.wait() != 0:
            self._errors.seek(0)
            lines = self._errors.read(4096).decode("utf-8", errors="replace").strip().splitlines()
            last = lines[-1].rpartition(": ")[2].strip() if lines else "it is damaged"
            if "premature end" in last or "unexpected end" in last.lower() or "truncated" in last.lower():
                raise StreamError("its zstd data ends too early")
            if "emory" in last:
                raise StreamError("its window wants more than 128 MB of memory")
            raise StreamError(clean(last))
        return data


@contextmanager
def unpacked(descriptor: int, packing: str, toolbox: Toolbox | None, *, lenient: bool = False) -> Iterator[Stream]:
    """Give what is inside the compressed file `descriptor`, from its present place on; it is not closed.

    `packing` is one of Packing's streams, or `lzma`; only zstd needs a tool. With `lenient` what is
    no member behind the last one of gzip or bzip2 is left out, as their own programs do.
    """
    if packing != Packing.ZSTD:
        with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            yield _Inside(file, packing, lenient=lenient)
        return
    assert toolbox is not None
    with (
        tempfile.TemporaryFile() as errors,
        Sandboxed[bytes](
            # It reads what somebody else has packed: no file but that one.
            toolbox.argv(
                *("zstd", "--quiet", "--decompress", "--stdout", "--no-progress", _ZSTD_MEMORY),
                view=View(network=False),
            ),
            stdin=descriptor,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=bare_env(),
        ) as process,
    ):
        try:
            yield _Zstd(process, errors)
        finally:
            process.kill()


def packing_of(head: bytes) -> str | None:
    """Return the packing of a stream that begins with `head`; None where it is none that is unpacked here."""
    return next((packing for magic, packing in _MAGICS.items() if head.startswith(magic)), None)


def whole(data: bytes, limit: int, toolbox: Toolbox | None = None) -> bytes | None:
    """Return what is inside a compressed stream; None where it is none, damaged, or larger than `limit` bytes."""
    if (packing := packing_of(data)) is None:
        return None
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        file.seek(0)
        try:
            with unpacked(file.fileno(), packing, toolbox) as stream:
                found = stream.read(limit + 1)
        except StreamError:
            return None
    return found if len(found) <= limit else None
