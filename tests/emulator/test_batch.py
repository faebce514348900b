"""Batches, as gcloud sends them."""

import email

from tests.emulator.conftest import PROJECT, Client


def batch(client: Client, requests: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Send requests (method, path, body) as one, and return the Content-ID and the status line of each answer."""
    parts = [
        f"--===b\nContent-Type: application/http\nMIME-Version: 1.0\nContent-Transfer-Encoding: binary\n"
        f"Content-ID: <uuid+{number}>\n\n{method} {path}?alt=json HTTP/1.1\ncontent-type: application/json\n"
        f"Host: \n\n{body}\n"
        for number, (method, path, body) in enumerate(requests)
    ]
    headers = {"Content-Type": 'multipart/mixed; boundary="===b"'}
    answer = client.ask("POST", "/batch/compute/v1", "".join([*parts, "--===b--"]).encode(), headers)
    head = f"Content-Type: {client.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer)
    found = []
    for part in message.get_payload():
        assert isinstance(part, email.message.Message)
        assert "application/http" == part.get_content_type()
        found.append((str(part["Content-ID"]), str(part.get_payload()).splitlines()[0]))
    return found


def test_each_part_is_answered(client: Client) -> None:
    """Every request of a batch has its own answer, in order, with its Content-ID."""
    zone = f"/compute/v1/projects/{PROJECT}/zones"
    answers = batch(client, [("GET", f"{zone}/us-east1-b", ""), ("GET", f"{zone}/none", "")])
    assert [("<response-uuid+0>", "HTTP/1.1 200 OK"), ("<response-uuid+1>", "HTTP/1.1 404 Not Found")] == answers


def test_waits_do_not_wait_for_each_other(client: Client) -> None:
    """Requests of a batch are carried out side by side: the first may wait for what the second does."""
    client.json("POST", "/emulator/v1/faults", {"kind": "hold", "path": "/zones/us-east1-b"})
    held = f"/compute/v1/projects/{PROJECT}/zones/us-east1-b"
    answers = batch(client, [("GET", held, ""), ("DELETE", "/emulator/v1/faults", "")])
    assert ["HTTP/1.1 200 OK", "HTTP/1.1 204 No Content"] == [line for _, line in answers]


def test_what_is_no_batch(client: Client) -> None:
    """A body that is no batch is refused."""
    client.json("POST", "/batch/compute/v1", b"x", {"Content-Type": "text/plain"})
    assert 400 == client.status


def test_batch_that_means_harm_is_answered(client: Client) -> None:
    """Names that are no ASCII come back as they can, and batches in batches are refused."""
    part = b"--b0\nContent-Type: application/http\nContent-ID: <\xff>\n\nGET /compute/v1/projects/p/zones HTTP/1.1\n\n"
    headers = {"Content-Type": "multipart/mixed; boundary=b0"}
    assert b"200 OK" in client.ask("POST", "/batch/compute/v1", part + b"--b0--", headers)
    deep = b"".join(b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (n, n + 1) for n in range(3000))
    client.ask("POST", "/batch/compute/v1", deep, headers)
    assert client.status == 400
