"""Settings of a run on Compute Engine, or on an emulator of it."""

import pytest
from requests.utils import should_bypass_proxies

from vmtests.gce.settings import Settings


def test_bucket_of_a_domains_project_is_no_domain() -> None:
    """Cloud Storage would take no bucket of a domain's name that there is not."""
    assert "example-com-one-vmtests" == Settings.find(project="example.com:one", endpoint="http://127.0.0.1:1").bucket


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://localhost:8080"])
@pytest.mark.parametrize("direct", [None, "example.com", "localhost,127.0.0.1"])
def test_emulator_is_asked_by_no_proxy(endpoint: str, direct: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy that a network names for the world could not reach an emulator, and would be handed its token."""
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, direct or "")
    Settings.find(endpoint=endpoint)
    assert should_bypass_proxies(f"{endpoint}/compute/v1", no_proxy=None)
    assert not should_bypass_proxies("http://compute.example.org/", no_proxy=None)
