"""How bytes travel over a serial line that loses some and mixes in kernel messages; pure functions.

To the guest in the notation of printf's `%b` (POSIX printf(1p)): every shell can read it without a tool.
From the guest in numbered lines of base64, of gzip in base64, or of hexadecimal digits, whichever its tools
allow.
"""

import base64
import binascii
import itertools
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from vmtests.errors import GuestError

CHUNK = 700
"""Characters of a chunk to the guest; a terminal's line has room for 4096 (termios(3))."""

# What no shell takes for anything else. Quotes would be shorter, but a lost one takes in all that follows.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:@_")
_ESCAPED = [chr(byte) if byte in _PLAIN else rf"\\0{byte:03o}" for byte in range(256)]
_NOTHING = r"\\c"  # printf(1p): ends the output
_SHORT = re.compile(rb"(\d{1,3}) \\ ((?:[^\\]|\\[\\nc])*) \\ ((?:[^\\]|\\[\\nc])*)")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


_PAUSES = (0.5, 1.0, 2.0, 4.0)


def pauses() -> Iterator[float]:
    """Yield for ever the seconds to wait for an answer before a question is asked again."""
    return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


class Nonce:
    """A secret that is used once: it is sent in two halves, and only an answer has them joined."""

    def __init__(self) -> None:
        self.halves = (f"vm{secrets.token_hex(6)}", secrets.token_hex(6))
        self.tag = "".join(self.halves)


def call(nonce: Nonce, function: str, *arguments: str) -> bytes:
    """Return the line that calls a function in the guest, with the length of its words once read."""
    words = " ".join((function, *arguments))
    length = len(words.replace("\\\\", "\\"))
    return f"_vm {nonce.halves[0]} {nonce.halves[1]} {length} {words}\n".encode()


class Encoding(StrEnum):
    """How the agent encoded an output."""

    BASE64 = "base64"
    GZIP = "gzip"
    HEX = "hex"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output that waits in the guest: its size in bytes, and checksum and size of the encoded text.

    None stands for what this guest has no tool to find out.
    """

    encoding: Encoding
    size: int | None
    checksum: int | None
    encoded_size: int | None

    @classmethod
    def parse(cls, words: list[str]) -> "Output":
        """Read the four words of the agent's answer; raises ValueError."""
        encoding, size, checksum, encoded_size = words
        return cls(
            encoding=Encoding(encoding),
            size=None if size == "-1" else int(size),
            checksum=None if checksum == "-" else int(checksum),
            encoded_size=None if encoded_size == "-" else int(encoded_size),
        )


_UNESCAPE = {b"\\\\": b"\\", b"\\n": b"\n", b"\\c": b":"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """A command that ended and wrote little, in one answer."""

    code: int
    stdout: bytes
    stderr: bytes

    @classmethod
    def parse(cls, tag: str, line: bytes) -> "Short | None":
        """Read `tag:CODE \\ STDOUT \\ STDERR:length.` in a line; None when that is not in it, or not whole."""
        match = answer_pattern(tag).search(line)
        if match is None or len(match[1]) != int(match[2]):
            return None
        fields = _SHORT.fullmatch(match[1])
        if fields is None:
            return None
        stdout, stderr = (re.sub(rb"\\[\\nc]", lambda found: _UNESCAPE[found[0]], fields[n]) for n in (2, 3))
        return cls(code=int(fields[1]), stdout=stdout, stderr=stderr)


def chunks(data: bytes) -> Iterator[str]:
    """Cut `data` into chunks for `printf %b` that need no quotes; there is always one."""
    parts: list[str] = []
    length = 0
    for byte in data:
        parts.append(_ESCAPED[byte])
        length += len(parts[-1])
        if length >= CHUNK:
            yield "".join(parts)
            parts, length = [], 0
    if parts or not data:
        yield "".join(parts) or _NOTHING


def single(script: bytes) -> str | None:
    """Return a script as the one chunk that it fits in, or None."""
    first, *more = itertools.islice(chunks(script), 2)
    return None if more else first


def cksum(data: bytes) -> int:
    """Return the checksum of cksum(1p).

    That CRC takes the highest bit first and zlib's the lowest, so every byte is reversed on its way in, and
    the result on its way out. It starts from zero, and ends with the length, lowest byte first.
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    mirrored = zlib.crc32((data + length).translate(_REVERSED), 0xFFFFFFFF)
    return int(f"{mirrored:032b}"[::-1], 2)


def answer_pattern(tag: str) -> re.Pattern[bytes]:
    """Return the pattern of an answer's line: the tag, the payload, the payload's length."""
    return re.compile(re.escape(tag).encode() + rb":([ -9;-~]*):(\d{1,9})\.")


def row_pattern(tag: str) -> re.Pattern[bytes]:
    """Return the pattern of a line of an encoded output: tag, number, text, the text's length."""
    return re.compile(re.escape(tag).encode() + rb"@(\d{1,9}):([A-Za-z0-9+/= ]*):(\d{1,9})\.")


def decode(output: Output, rows: Mapping[int, bytes], limit: int) -> bytes | None:
    """Put the rows of an output together; None when they are not what the guest encoded.

    Raises GuestError when more than `limit` bytes come out.
    """
    text = b"".join(rows[number] + b"\n" for number in sorted(rows))
    if output.checksum is not None and (len(text), cksum(text)) != (output.encoded_size, output.checksum):
        return None
    if output.encoding is Encoding.NONE:
        raise GuestError("this guest has neither base64 nor od, and its shell is not bash: no output can be fetched")
    try:
        if output.encoding is Encoding.HEX:
            data = bytes.fromhex(text.decode("ascii"))
        else:
            data = base64.b64decode(text.replace(b"\n", b""), validate=True)
        if output.encoding is Encoding.GZIP:
            data = zlib.decompressobj(wbits=31).decompress(data, limit + 1)
    except (ValueError, binascii.Error, zlib.error):
        return None
    if len(data) > limit:
        raise GuestError(f"a command in the guest wrote more than {limit} bytes")
    return data if output.size in (None, len(data)) else None
