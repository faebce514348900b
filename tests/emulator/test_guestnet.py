"""Names and time, as a guest asks for them."""

import struct

import pytest

from vmtests.emulator.guestnet import dns_answer, ntp_answer

NAMES = {"metadata.google.internal": "169.254.169.254"}


def query(name: str, kind: int = 1) -> bytes:
    """Return a DNS query, with recursion desired."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_known_name_has_its_address() -> None:
    """A name that is known is answered with its address, whatever its case."""
    answer = dns_answer(query("Metadata.google.internal"), NAMES)
    assert answer is not None
    assert (b"\x12\x34", 0, 1) == (answer[:2], answer[3] & 15, struct.unpack("!H", answer[6:8])[0])
    assert bytes([169, 254, 169, 254]) == answer[-4:]


@pytest.mark.parametrize(("name", "kind", "code"), [("metadata.google.internal", 28, 0), ("example.com", 1, 3)])
def test_other_questions_have_no_answer(name: str, kind: int, code: int) -> None:
    """A known name has no other records, and another name does not exist: the network has no outside."""
    answer = dns_answer(query(name, kind), NAMES)
    assert answer is not None
    assert (code, 0) == (answer[3] & 15, struct.unpack("!H", answer[6:8])[0])


@pytest.mark.parametrize("data", [b"", bytes(11), bytes(12), query("a.b")[:-3], query("a")[:4] + b"\0\2" + bytes(20)])
def test_what_is_no_query(data: bytes) -> None:
    """What is no query for one name is not answered."""
    assert None is dns_answer(data, NAMES)


def test_time_is_told() -> None:
    """A client of NTP gets the time, with its own as the origin; what is no client gets nothing."""
    asked = bytes([0x23]) + bytes(39) + b"mystamp!"
    answer = ntp_answer(asked, 1_700_000_000.5)
    assert answer is not None
    assert (48, 0x24, b"mystamp!") == (len(answer), answer[0], answer[24:32])
    assert (1_700_000_000 + 2_208_988_800, 1 << 31) == struct.unpack("!II", answer[40:])
    assert None is ntp_answer(b"\x23", 0)
    assert None is ntp_answer(bytes([0x24]) + bytes(47), 0)
