"""A guest that scans its network: its frames are made here and given to QEMU's own network, without a guest."""

import contextlib
import selectors
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from vmtests.host import tools
from vmtests.host.architecture import GUEST
from vmtests.host.sandbox import Sandboxed, tool_env
from vmtests.machine import argv
from vmtests.machine.hardware import Hardware, Net

GATEWAY, LOOPBACK, METADATA = "10.128.0.1", "127.0.0.2", "169.254.169.254"
_TCP, _UDP, _PORT = 6, 17, 40000
_HEARD_SECONDS, _SILENT_SECONDS = 20.0, 0.3


def checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(protocol: int, target: str, port: int) -> bytes:
    """Return an Ethernet frame of our guest with the first packet of a TCP connection, or a UDP datagram."""
    source, destination = IPv4Address(Hardware().address).packed, IPv4Address(target).packed
    if protocol == _TCP:
        ports = struct.pack(">HHIIBBHHH", _PORT, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
        pseudo = source + destination + struct.pack(">HH", protocol, len(ports))
        inner = ports[:16] + struct.pack(">H", checksum(pseudo + ports)) + ports[18:]
    else:
        inner = struct.pack(">HHHH", _PORT, port, 8 + 5, 0) + b"knock"
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 1, 0, 64, protocol, 0, source, destination)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    # libslirp's own hardware addresses are made of its network's.
    ethernet = b"\x52\x55" + IPv4Address(GATEWAY).packed + b"\x42\x01" + source + b"\x08\x00"
    return ethernet + head + inner


class Wire:
    """The guest's end of the network's cable: each frame has its length in front (QEMU's net/stream.c)."""

    def __init__(self, end: socket.socket) -> None:
        self._file = end.makefile("rwb")
        end.settimeout(_HEARD_SECONDS)

    def send(self, data: bytes) -> None:
        """Send a frame."""
        self._file.write(struct.pack(">I", len(data)) + data)
        self._file.flush()

    def settle(self) -> None:
        """Wait until all that was sent has been looked at: the gateway answers who asks for its address (RFC 826)."""
        own = b"\x42\x01" + IPv4Address(Hardware().address).packed
        asked = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + own + own[2:] + bytes(6) + IPv4Address(GATEWAY).packed
        self.send(b"\xff" * 6 + own + b"\x08\x06" + asked)
        while True:
            (length,) = struct.unpack(">I", self._file.read(4))
            answer = self._file.read(length)
            if answer[12:14] == b"\x08\x06" and answer[20:22] == b"\x00\x02":
                return


@contextlib.contextmanager
def network(net: Net) -> Iterator[Wire]:
    """Have QEMU's network as a machine of ours would, and a guest's end of it."""
    ours, theirs = socket.socketpair()
    (_, option, *_) = argv._net(Hardware(net=net))
    fd = str(theirs.fileno())
    hub = (
        *("-netdev", option, "-netdev", "hubport,id=h0,hubid=0,netdev=net0"),
        *("-netdev", f"stream,id=s0,server=off,addr.type=fd,addr.str={fd}"),
        *("-netdev", "hubport,id=h1,hubid=0,netdev=s0"),
    )
    # A machine without a processor; a paused one would pass no frames on.
    quiet = ("-M", "none", "-nodefaults", "-display", "none", *hub)
    command = tools.find().argv(GUEST.qemu, *quiet)
    with (
        ours,
        Sandboxed[bytes](command, stdin=subprocess.DEVNULL, env=tool_env(), pass_fds=[theirs.fileno()]) as qemu,
    ):
        theirs.close()
        try:
            yield Wire(ours)
        finally:
            qemu.kill()


def heard(net: Net, targets: tuple[str, ...], seconds: float) -> set[str]:
    """Return how a port of this host was knocked at, when a guest tried TCP and UDP at `targets`."""
    with (
        socket.create_server(("0.0.0.0", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        selectors.DefaultSelector() as selector,
        network(net) as wire,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("0.0.0.0", port))
        selector.register(tcp, selectors.EVENT_READ, "tcp")
        selector.register(udp, selectors.EVENT_READ, "udp")
        for target in targets:
            for protocol in (_TCP, _UDP):
                wire.send(frame(protocol, target, port))
        wire.settle()
        found: set[str] = set()
        while ready := selector.select(seconds):
            for key, _ in ready:
                selector.unregister(key.fileobj)
                found.add(key.data)
            if not selector.get_map():
                break
        return found


def test_isolated_guest_reaches_no_port() -> None:
    """Neither of the host, by its gateway's or a loopback address, nor of a metadata server, TCP or UDP."""
    assert heard(Net.ISOLATED, (GATEWAY, LOOPBACK, METADATA), _SILENT_SECONDS) == set()


def test_what_knocks_is_heard_where_it_may() -> None:
    """The same frames on a network that has an outside arrive: the test above would hear them."""
    assert heard(Net.USER, (GATEWAY,), _HEARD_SECONDS) == {"tcp", "udp"}


@pytest.mark.parametrize("protocol", [_TCP, _UDP])
def test_frame_is_whole(protocol: int) -> None:
    """Its checksums are right, or a network would drop it whoever sent it."""
    packet = frame(protocol, GATEWAY, 80)[14:]
    assert checksum(packet[:20]) == 0
    if protocol == _TCP:
        pseudo = packet[12:20] + struct.pack(">HH", protocol, len(packet) - 20)
        assert checksum(pseudo + packet[20:]) == 0
