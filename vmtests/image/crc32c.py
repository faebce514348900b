"""CRC-32C (Castagnoli) as the kernel's file systems use it; Python has only the other polynomial."""

_POLYNOMIAL = 0x82F63B78  # reflected; RFC 3720, appendix B.4


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(index) for index in range(256))


def crc32c(data: bytes, seed: int = 0xFFFFFFFF) -> int:
    """Return the checksum of `data` as crc32c() of lib/crc32.c does: nothing is inverted at the end."""
    value = seed
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value
