"""Addresses of instances."""

import secrets
from collections.abc import Collection

from vmtests.emulator.http import ApiError
from vmtests.emulator.instance import Addresses

_FIRST = 16  # the gateway, the name server and others of QEMU's user network have those below
_LAST = 4000  # 10.128.0.0/20 has 4096


def new_addresses(taken: Collection[str]) -> Addresses:
    """Return addresses that no other instance has: in 10.128.0.0/20, and on the host's loopback, 127.0.0.0/8.

    The one on the host takes the place of a public address: it is chosen by chance, so that two emulators on one host
    hardly ever choose the same. Raises ApiError when all are taken.
    """
    for number in range(_FIRST, _LAST):
        internal = f"10.128.{number >> 8}.{number & 255}"
        if internal not in taken:
            # 127.0 and 127.1 are left to everybody else.
            external = f"127.{2 + secrets.randbelow(252)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
            return Addresses(internal=internal, external=external)
    raise ApiError(400, "ipSpaceExhausted", "IP space of the network 'default' is exhausted.")
