"""Filters, orders and pages of lists."""

from email.message import Message
from io import BytesIO

import pytest

from vmtests.emulator.http import ApiError, Json, Request
from vmtests.emulator.listing import page, parse_filter

ITEM: Json = {
    "name": "vm-1",
    "status": "RUNNING",
    "id": "17",
    "labels": {"run": "r1", "empty": ""},
    "deletionProtection": False,
    "scheduling": {"preemptible": True},
    "disks": [{"deviceName": "a"}, {"deviceName": "b"}],
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("name=vm-1", True),
        ("name = vm-2", False),
        ('name="vm-1"', True),
        ("name!=vm-2", True),
        ("labels.run=r1", True),
        ("labels.run=r", False),
        ("labels.run:*", True),
        ("labels.empty:*", True),
        ("labels.none:*", False),
        ("-labels.none:*", True),
        ("labels.none!=r1", True),
        ("name:vm*", True),
        ("name:m-1", True),
        ("id>9", True),
        ("id<=9", False),
        ("status=RUNNING AND labels.run=r1", True),
        ("status=RUNNING labels.run=r2", False),
        ("labels.run=r2 OR status=RUNNING", True),
        ("(status=RUNNING) AND (labels.run=r2 OR name=vm-1)", True),
        ("NOT name=vm-1", False),
        ("scheduling.preemptible=true", True),
        ("deletionProtection=false", True),
        ("disks.deviceName=b", True),
        ("disks.deviceName=c", False),
        ("name eq vm-.*", True),
        ("name ne vm-.*", False),
        ("name eq .*2", False),
    ],
)
def test_filters(text: str, fits: bool) -> None:
    """A filter takes what the API's reference says it takes."""
    assert fits == parse_filter(text)(ITEM)


@pytest.mark.parametrize(
    "text", ["name", "name=", "=x", "(name=x", "name=x)", "name ~ x", "AND", '"', "-", "x" * 5000, "(" * 500]
)
def test_unreadable_filters_are_refused(text: str) -> None:
    """What is no filter is refused with 400, never with less."""
    with pytest.raises(ApiError) as caught:
        parse_filter(text)
    assert 400 == caught.value.status


def ask(query: str) -> tuple[list[str], str | None]:
    """Return the names of a page of five items, and the token of the next."""
    items = [{"name": name, "creationTimestamp": stamp} for name, stamp in zip("ecabd", "12345", strict=True)]
    found, token = page(Request.of("GET", f"/x?{query}", Message(), BytesIO()), items)
    return [item["name"] for item in found], token


def test_pages_follow_each_other() -> None:
    """Pages are in order of names, or the newest first, and each tells where the next begins."""
    assert (["a", "b"], "2") == ask("maxResults=2")
    assert (["c", "d"], "4") == ask("maxResults=2&pageToken=2")
    assert (["e"], None) == ask("maxResults=2&pageToken=4")
    assert (["d", "b"], "2") == ask("maxResults=2&orderBy=creationTimestamp+desc")
    for wrong in ("maxResults=x", "maxResults=501", "orderBy=size", "pageToken=x"):
        with pytest.raises(ApiError):
            ask(wrong)
