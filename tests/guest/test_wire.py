"""How bytes travel over a bad line."""

import base64
import gzip
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.errors import GuestError
from vmtests.guest import wire
from vmtests.guest.wire import Encoding, Output, Short


@given(st.binary(max_size=70))
def test_checksum_is_that_of_posix(data: bytes) -> None:
    """The checksum is that of POSIX's polynomial division, done here bit by bit."""
    register = 0
    for byte in data + bytes([len(data)] if data else []):
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    assert wire.cksum(data) == register ^ 0xFFFFFFFF


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(70000)])
def test_checksum_is_that_of_the_tool(data: bytes) -> None:
    """The checksum is what cksum prints."""
    printed = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.split()
    assert [wire.cksum(data), len(data)] == [int(word) for word in printed]


@given(st.binary(max_size=3000))
def test_chunks_are_what_they_were(data: bytes) -> None:
    """Chunks are short words that need no quotes, and together give the data back."""
    chunks = list(wire.chunks(data))
    assert all(re.fullmatch(r"[A-Za-z0-9%+,./:@_\\-]{1,706}", chunk) for chunk in chunks)
    octal = "".join(chunks).replace(r"\\0", "\\").replace(r"\\c", "").encode()
    assert octal.decode("unicode_escape").encode("latin-1") == data


def test_a_shell_reads_chunks() -> None:
    """A shell that reads the chunks as words writes the data by printf's %b."""
    data = bytes(range(256))
    script = f"for word in {' '.join(wire.chunks(data))}; do printf %b $word; done"
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout == data


def test_a_call_knows_its_length() -> None:
    """A call tells how long its words are once the shell has read them, so that a lost byte is noticed."""
    *_, length, function, word = wire.call(wire.Nonce(), "f", r"a\\0040").split()
    read = subprocess.run(["sh", "-c", f'set -- f {word.decode()}; printf %s "$*"'], capture_output=True, check=True)
    assert (int(length), function) == (len(read.stdout), b"f")


def _output(encoding: Encoding, data: bytes, text: bytes) -> Output:
    return Output(encoding=encoding, size=len(data), checksum=wire.cksum(text), encoded_size=len(text))


def _encode(encoding: Encoding, data: bytes) -> bytes:
    if encoding is Encoding.HEX:
        return data.hex(" ").encode() + b"\n"
    return base64.encodebytes(gzip.compress(data) if encoding is Encoding.GZIP else data)


def _rows(text: bytes) -> dict[int, bytes]:
    return dict(enumerate(text.split(b"\n")[:-1], start=1))


@pytest.mark.parametrize("encoding", [Encoding.BASE64, Encoding.GZIP, Encoding.HEX])
def test_decoding(encoding: Encoding) -> None:
    """Every encoding of the agent is read."""
    data = bytes(range(256)) * 5
    text = _encode(encoding, data)
    assert wire.decode(_output(encoding, data, text), _rows(text), limit=len(data)) == data


@pytest.mark.parametrize("encoding", [Encoding.BASE64, Encoding.GZIP, Encoding.HEX])
def test_a_damaged_row(encoding: Encoding) -> None:
    """A row that is not what the guest encoded is noticed, by the checksum."""
    data = bytes(range(256)) * 5
    text = _encode(encoding, data)
    rows = _rows(text)
    rows[1] = rows[1][:3] + (b"A" if rows[1][3:4] != b"A" else b"B") + rows[1][4:]
    assert wire.decode(_output(encoding, data, text), rows, limit=len(data)) is None


@pytest.mark.parametrize("encoding", [Encoding.BASE64, Encoding.GZIP, Encoding.HEX])
def test_nonsense_without_a_checksum(encoding: Encoding) -> None:
    """Where the guest has no cksum, text that cannot be decoded is noticed all the same."""
    output = Output(encoding=encoding, size=None, checksum=None, encoded_size=None)
    assert wire.decode(output, {1: b"x=x"}, limit=100) is None


def test_a_bomb() -> None:
    """Compressed output that grows beyond the limit is an error, and is not unpacked."""
    text = _encode(Encoding.GZIP, bytes(1 << 20))
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        wire.decode(_output(Encoding.GZIP, b"", text), _rows(text), limit=1000)


@pytest.mark.parametrize("line", [b"tagx:ok:2.", b"tag:ok:2", b"tag:o[ 1.0] usb 1-1:k:2.", b"tag:o\x1bk:3.", b"ok:2."])
def test_what_is_no_answer(line: bytes) -> None:
    """Only the tag, a payload of plain characters and its length are an answer."""
    assert wire.answer_pattern("tag").search(line) is None


def test_an_answer_behind_noise() -> None:
    """An answer counts wherever in a line it begins."""
    match = wire.answer_pattern("tag").search(b"[  1.5] usb: tag:run 0:5.\r")
    assert match is not None
    assert (match[1], match[2]) == (b"run 0", b"5")


def test_nonces_differ() -> None:
    """No two questions have the same tag."""
    assert len({wire.Nonce().tag for _ in range(100)}) == 100


@pytest.mark.parametrize("words", [[], ["zip", "1", "1", "1"], ["hex", "x", "1", "1"], ["hex", "1", "1", "1", "1"]])
def test_descriptions_that_are_none(words: list[str]) -> None:
    """A description of an output that the agent would not write raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Output.parse(words)


def _short(code: int, stdout: str, stderr: str) -> bytes:
    escaped = [text.replace("\\", "\\\\").replace(":", "\\c").replace("\n", "\\n") for text in (stdout, stderr)]
    payload = f"{code} \\ {escaped[0]} \\ {escaped[1]}"
    return f"tag:{payload}:{len(payload)}.".encode()


_PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n"), max_size=200)


@given(st.integers(0, 255), _PRINTABLE, _PRINTABLE)
def test_short_outputs_come_back_as_they_were(code: int, stdout: str, stderr: str) -> None:
    """Exit code and both outputs of a command that wrote little are read from one line."""
    expected = Short(code=code, stdout=stdout.encode(), stderr=stderr.encode())
    assert Short.parse("tag", _short(code, stdout, stderr)) == expected


@given(_PRINTABLE, st.data())
def test_short_outputs_that_lost_a_byte_are_not_taken(stdout: str, data: st.DataObject) -> None:
    """A line that lost a byte is no answer."""
    line = _short(0, stdout, "")
    at = data.draw(st.integers(0, len(line) - 1))
    assert Short.parse("tag", line[:at] + line[at + 1 :]) is None
