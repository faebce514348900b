"""The nightly workflow, its role, and what it says when a night fails."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.nightly.issue import failures, issue
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor

GITHUB = Path(__file__).parents[2] / ".github"
NIGHTLY = GITHUB / "workflows/nightly-gce.yml"

# Permissions that are no methods' own (Compute Engine's "Roles and permissions" names them with those that need them).
USES = {"compute.images.useReadOnly", "compute.subnetworks.use", "compute.subnetworks.useExternalIp"}


def load(path: Path) -> Any:
    """Return the content of a YAML file."""
    return YAML(typ="safe", pure=True).load(path)


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    """The steps of the nightly job."""
    found: list[dict[str, Any]] = load(NIGHTLY)["jobs"]["suite"]["steps"]
    return found


def test_no_key_is_kept(steps: list[dict[str, Any]]) -> None:
    """Google knows the workflow by its own identity: no secret is used, and its token may do little."""
    text = NIGHTLY.read_text()
    assert ("secrets." in text, "credentials_json" in text) == (False, False)
    (auth,) = [step for step in steps if "google-github-actions/auth" in step.get("uses", "")]
    assert {"workload_identity_provider", "service_account"} == set(auth["with"])
    workflow = load(NIGHTLY)
    assert {} == workflow["permissions"]
    assert {"contents": "read", "id-token": "write", "issues": "write"} == workflow["jobs"]["suite"]["permissions"]


def test_nothing_foreign_is_run_by_the_shell(steps: list[dict[str, Any]]) -> None:
    """No expression is written into a script: what comes from outside comes by the environment."""
    assert [] == [step["run"] for step in steps if "${{" in step.get("run", "")]


def test_what_is_left_is_removed_before_and_after(steps: list[dict[str, Any]]) -> None:
    """The collector runs before the suite, and after it whatever became of it; so do the results go out."""
    named = {number: step.get("run", "") + step.get("uses", "") for number, step in enumerate(steps)}
    (suite,) = [number for number, text in named.items() if "pytest vmtests/" in text]
    before, after = [number for number, text in named.items() if "vmtests gce gc" in text]
    (upload,) = [number for number, text in named.items() if "upload-artifact" in text]
    assert before < suite < after < upload
    assert ("always()", "always()") == (steps[after]["if"], steps[upload]["if"])
    assert steps[upload]["with"]["path"] in steps[suite]["run"]


def test_role_is_for_methods_that_are_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The role allows what the emulator serves, which is what the suite was seen to need, and changes nothing else."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path))
    with Emulator(hypervisor=FakeHypervisor()) as emulator:
        methods = {route.id for route in emulator.api.routers[0].routes}
    permissions = load(GITHUB / "gce-role.yml")["includedPermissions"]
    assert sorted(permissions) == permissions
    served = {name for name in permissions if name.replace(".create", ".insert") in methods}
    assert USES == set(permissions) - served


JUNIT = """<testsuites><testsuite><testcase name="good"/>
<testcase name="one"><error message='failed on setup with "boot failed in kernel: panic \\x1b[31m"'/></testcase>
<testcase name="two"><failure message="assert 1 == 2&#10;```&#10;# no heading"/></testcase>
</testsuite></testsuites>"""


def test_issue_says_the_verdict(tmp_path: Path) -> None:
    """The title is the first verdict, on one line; the words of a guest stand in an indented block."""
    junit = tmp_path / "junit.xml"
    junit.write_text(JUNIT)
    assert ["one", "two"] == [name for name, _ in failures(junit)]
    title, body = issue(junit, "https://example.org/1")
    assert "nightly-gce: boot failed in kernel: panic \\x1b[31m" == title
    block, _, last = body.partition("\n\n")
    assert all(line.startswith("    ") for line in block.splitlines())
    assert (2, True) == (len(block.splitlines()), "(https://example.org/1)" in last)


@pytest.mark.parametrize("text", [None, "", "<testsuites/>", "<"])
def test_issue_without_a_verdict(tmp_path: Path, text: str | None) -> None:
    """A run that ended before its first test is told as such."""
    junit = tmp_path / "junit.xml"
    if text is not None:
        junit.write_text(text)
    title, _ = issue(junit, "https://example.org/1")
    assert "nightly-gce: the run ended before a test did" == title
