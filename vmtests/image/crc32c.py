"""CRC-32C (Castagnoli) as the kernel's file systems use it."""

import google_crc32c

_ALL = 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the checksum of `data` as crc32c() of lib/crc32.c does: nothing is inverted at the end."""
    value: int = google_crc32c.value(data)
    return value ^ _ALL
