"""The KVM device, by how it opens."""

from pathlib import Path

from vmtests.host import accel


def test_no_device(tmp_path: Path) -> None:
    """A host without the device is told what to load."""
    outcome = accel.device_refusal(tmp_path / "kvm")
    assert outcome is not None
    assert f"there is no {tmp_path}/kvm" == outcome.reason
    assert "kvm_intel" in str(outcome.hint)


def test_device_that_opens(tmp_path: Path) -> None:
    """A device that opens is no refusal, and no proof either."""
    (tmp_path / "kvm").touch()
    assert accel.device_refusal(tmp_path / "kvm") is None


def test_device_of_another_kind(tmp_path: Path) -> None:
    """A device that cannot be opened for another reason is told with that reason."""
    outcome = accel.device_refusal(tmp_path)
    assert outcome is not None
    assert f"{tmp_path} cannot be opened: Is a directory" == outcome.reason
