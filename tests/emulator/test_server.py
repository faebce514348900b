"""The HTTP server: streams, connections, and requests that are none."""

import contextlib
import socket
from email.message import Message

import pytest

from tests.emulator.conftest import PROJECT, Client
from vmtests.emulator.http import Reply, Request
from vmtests.emulator.server import Server, listen
from vmtests.gce import tokens


def raw(client: Client, data: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    port = int(client.emulator.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        known = f"HTTP/1.1\r\nAuthorization: Bearer {client.emulator.token}\r\n".encode()
        connection.sendall(data.replace(b"HTTP/1.1\r\n", known))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_chunked_body(client: Client) -> None:
    """A body in chunks is taken as one of known length is, and the connection goes on behind it."""
    client.json("POST", f"/storage/v1/b?project={PROJECT}", {"name": "bkt"})
    head = b"POST /upload/storage/v1/b/bkt/o?uploadType=media&name=a HTTP/1.1\r\nHost: localhost\r\n"
    chunks = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    answer = raw(client, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"GET /none HTTP/1.1\r\n\r\n")
    assert [b"200", b"404"] == [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert b"abcdefg" == client.ask("GET", "/storage/v1/b/bkt/o/a?alt=media")


@pytest.mark.parametrize("size", [b"-5", b"+5", b"0x5", b"1_0", b"\xc2\xb2", b"f" * 40])
def test_chunk_of_no_size_ends_the_connection(client: Client, size: bytes) -> None:
    """Only hexadecimal digits are a size: what Python takes for a number besides has no end, or another one."""
    client.json("POST", f"/storage/v1/b?project={PROJECT}", {"name": "bkt"})
    head = b"POST /upload/storage/v1/b/bkt/o?uploadType=media&name=a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.suppress(ConnectionResetError):
        assert b"" == raw(client, head + size + b"\r\nabcdefghijklmnop\r\n0\r\n\r\n")


def test_unread_body_is_skipped(client: Client) -> None:
    """A request that is refused before its body is read does not spoil the next one of the connection."""
    body = b"x" * 1000
    head = b"POST /upload/storage/v1/b/none/o?uploadType=what HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
    answer = raw(client, head + body + b"GET /none HTTP/1.1\r\n\r\n")
    assert [b"400", b"404"] == [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_body_that_is_announced(client: Client) -> None:
    """A client that waits for permission to send its body gets it."""
    port = int(client.emulator.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST /storage/v1/b?project={PROJECT} HTTP/1.1\r\nContent-Length: 15\r\nExpect: 100-continue\r\n"
        head += f"Authorization: Bearer {client.emulator.token}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"name": "bkt"}')
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "path",
    [
        "/compute/v1/projects/p/zones/none",
        "/compute/v1/projects/p/zones/none/instances",
        "/compute/v1/projects/p/zones/us-east1-b/operations/none",
        "/compute/v1/projects/p/what",
        "/storage/v1/b/none",
        "//[",
    ],
)
def test_what_is_not_there(client: Client, path: str) -> None:
    """What is not there is an error in JSON, as Google's services send it."""
    data = raw(client, f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    status, body = data.split(b" ")[1], data.partition(b"\r\n\r\n")[2]
    assert status in {b"404", b"400"}
    assert b'"error"' in body


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_bodies_that_are_no_json(client: Client, body: bytes) -> None:
    """A body that is no JSON object is refused."""
    client.json("POST", f"/storage/v1/b?project={PROJECT}", body)
    assert 400 == client.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: 127.0.0.1:8080", b"200"),
        ("Host: localhost", b"200"),
        ("Host: page.example:8080", b"403"),
        ("Host: 127.0.0.1:8080\r\nOrigin: https://page.example", b"403"),
        ("Host: 127.0.0.1:8080\r\nOrigin: null", b"403"),
        ("Host: 127.0.0.1:8080\r\nSec-Fetch-Site: cross-site", b"403"),
    ],
)
def test_no_web_page_is_served(client: Client, headers: str, status: bytes) -> None:
    """What a page makes a browser ask is refused, and nothing comes of it; programs are served."""
    body = b'{"name": "bkt"}'
    head = f"POST /storage/v1/b?project={PROJECT} HTTP/1.1\r\n{headers}\r\nContent-Type: text/plain\r\n"
    answer = raw(client, head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    assert answer.split(b" ")[1] == status
    there = client.json("GET", f"/storage/v1/b?project={PROJECT}").get("items", [])
    assert len(there) == (1 if status == b"200" else 0)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x", "{token}"])
@pytest.mark.parametrize("path", ["/storage/v1/b?project=p", "/emulator/v1/faults", "/batch/compute/v1", "/token"])
def test_nobody_without_the_token_is_served(client: Client, given: str, path: str) -> None:
    """Who does not know the token, another user of this host or a page, is told nothing and changes nothing."""
    headers = {"Authorization": given.format(token=client.emulator.token)} if given else {"Authorization": "none"}
    client.json("POST", path, b'{"name": "bkt", "kind": "stockout"}', headers)
    assert 401 == client.status
    assert [] == client.json("GET", f"/storage/v1/b?project={PROJECT}").get("items", [])
    assert [] == client.json("GET", "/emulator/v1/faults")["items"]


def test_token_is_for_its_user_alone(client: Client) -> None:
    """The file with the token can be read by its user, and is what a client finds for the endpoint."""
    assert 0o600 == client.emulator.token_file.stat().st_mode & 0o777
    assert client.emulator.token == tokens.find(client.emulator.endpoint)
    assert "" == tokens.find("http://127.0.0.1:1")


def test_connections_are_limited() -> None:
    """Of more connections than are allowed the newest are closed, and the others stay."""

    def answer(_request: Request) -> Reply:
        return Reply(body=b"yes")

    with Server(listen("127.0.0.1", 0), answer, software="test", limit=1) as server:
        address = server.socket.getsockname()
        with socket.create_connection(address, timeout=10) as first:
            first.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert first.recv(1000).endswith(b"yes")
            with socket.create_connection(address, timeout=10) as second:
                assert b"" == second.recv(1)
            first.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert first.recv(1000).endswith(b"yes")


def test_parameter_given_twice() -> None:
    """Of a parameter that is given twice the last one counts."""
    request = Request.of("GET", "/a?b=1&b=2&c=", Message(), None)  # type: ignore[arg-type]
    assert {"b": "2", "c": ""} == request.query
