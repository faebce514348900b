"""Network namespaces, made for real."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vmtests.errors import HostError
from vmtests.host.sandbox import sandbox
from vmtests.machine.netns import Namespaces

ADDRESS = "169.254.169.254"

_GUEST = f"""
import socket
with socket.create_connection(("{ADDRESS}", 80), timeout=10) as one:
    one.sendall(b"hello")
    print(one.recv(10).decode())
try:
    socket.create_connection(("192.0.2.1", 80), timeout=10)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def maker() -> Iterator[Namespaces]:
    """A maker of namespaces."""
    with Namespaces(ADDRESS) as made:
        yield made


def test_only_we_are_there(maker: Namespaces) -> None:
    """A process in a namespace reaches us at the address, and nobody else anywhere."""
    namespace = maker.new()
    command = [*namespace.argv, *sandbox_of_host(), sys.executable, "-c", _GUEST]
    with subprocess.Popen(command, pass_fds=namespace.fds, stdout=subprocess.PIPE, text=True) as process:
        connection, _ = namespace.listening.accept()
        with connection:
            assert b"hello" == connection.recv(10)
            connection.sendall(b"world")
        said, _ = process.communicate(timeout=20)
    namespace.close()
    assert ["world", "Network is unreachable"] == said.splitlines()


def sandbox_of_host() -> list[str]:
    """Return how a tool is entered, as QEMU is."""
    from pathlib import Path

    return sandbox(Path("/"))


def test_namespaces_are_apart(maker: Namespaces) -> None:
    """A port in one namespace is reached through it, and not through another."""
    one, other = maker.new(), maker.new()
    listening = maker.new_socket(one.fds[0])
    with listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with one.connect(port, 10) as connection:
            accepted, _ = listening.accept()
            with accepted:
                accepted.sendall(b"x")
                assert b"x" == connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            other.connect(port, 10)
    one.close()
    other.close()


def test_nothing_outlives_us() -> None:
    """The process that makes namespaces ends with us, and who asks it then is told."""
    with Namespaces(ADDRESS) as made:
        process = made._process
        process.kill()
        process.wait()
        with pytest.raises(HostError):
            made.new()
    assert process.poll() is not None


def test_descriptors_are_given_back(maker: Namespaces) -> None:
    """A namespace that is closed leaves no descriptor open."""
    namespace = maker.new()
    numbers = [*namespace.fds, namespace.dns.fileno()]
    namespace.close()
    namespace.close()
    for number in numbers[:1] + numbers[-1:]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            socket.socket(fileno=number)
