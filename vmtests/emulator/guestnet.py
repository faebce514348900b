"""What a guest finds at 169.254.169.254: metadata, names and the time."""

import contextlib
import ipaddress
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from vmtests.emulator.http import Reply, Request
from vmtests.emulator.server import Server
from vmtests.machine.netns import Namespace

_CONNECTIONS = 64
_DATAGRAM = 4096
_NTP_EPOCH = 2208988800  # seconds from 1900 to 1970 (RFC 5905)
_NTP_BYTES = 48
_TTL = 300
_A, _IN, _NXDOMAIN = 1, 1, 3  # RFC 1035


class GuestNetwork:
    """Answers in a namespace: HTTP by `metadata`, DNS for `names`, and NTP; a context manager."""

    def __init__(self, namespace: Namespace, metadata: Callable[[Request], Reply], names: Mapping[str, str]) -> None:
        self._server = Server(namespace.listening, metadata, software="Metadata Server for VM", limit=_CONNECTIONS)
        self._dns, self._ntp = namespace.dns, namespace.ntp
        self._names = {name.lower(): address for name, address in names.items()}
        self._stop_in, self._stop_out = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="guest-network", daemon=True)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop_in)
        self._thread.join()
        os.close(self._stop_out)
        self._server.__exit__(None, None, None)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop_out, selectors.EVENT_READ)
            selector.register(self._dns, selectors.EVENT_READ, lambda data: dns_answer(data, self._names))
            selector.register(self._ntp, selectors.EVENT_READ, lambda data: ntp_answer(data, time.time()))
            while True:
                for key, _ in selector.select():
                    if not isinstance(key.fileobj, socket.socket):
                        return
                    # A guest that has gone takes no answer.
                    with contextlib.suppress(OSError):
                        data, sender = key.fileobj.recvfrom(_DATAGRAM)
                        if answer := key.data(data):
                            key.fileobj.sendto(answer, sender)


def dns_answer(query: bytes, names: Mapping[str, str]) -> bytes | None:
    """Return the answer to a DNS query for one name (RFC 1035); None to what is none."""
    if len(query) < 12 or query[2] & 0x80 or query[4:6] != b"\0\1":
        return None
    labels, position = [], 12
    while position < len(query) and (length := query[position]):
        labels.append(query[position + 1 : position + 1 + length].decode("latin-1"))
        position += 1 + length
    question = query[12 : position + 5]
    if len(question) != position - 7:
        return None
    kind, network = struct.unpack("!HH", question[-4:])
    address = names.get(".".join(labels).lower())
    found = address is not None and (kind, network) == (_A, _IN)
    # An authoritative answer; recursion is allowed if it was asked for.
    flags = 0x8480 | (query[2] & 1) << 8 | (_NXDOMAIN if address is None else 0)
    head = query[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0)
    if not found or address is None:
        return head + question
    # The name is that of the question, at byte 12.
    record = struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL, 4) + ipaddress.IPv4Address(address).packed
    return head + question + record


def ntp_answer(query: bytes, now: float) -> bytes | None:
    """Return the answer to an NTP client at `now`, in seconds since 1970 (RFC 5905, section 7.3); None to others."""
    if len(query) < _NTP_BYTES or query[0] & 7 != 3:
        return None
    stamp = struct.pack("!II", int(now) + _NTP_EPOCH & 0xFFFFFFFF, int(now % 1 * (1 << 32)))
    version = query[0] & 0x38
    head = struct.pack("!BBbb", version | 4, 2, 6, -20) + bytes(8) + b"GOOG"
    return head + stamp + query[40:48] + stamp + stamp
