"""A machine's state goes out or the reason is told."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from vmtests.errors import HostError
from vmtests.machine import migration


def _fails(command: str, *_: Any) -> object:
    return {"status": "failed", "error-desc": "ram_save_setup failed: Input/output error"}


def _free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    total = shutil.disk_usage("/").total
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(total, total - free, free))


def test_full_disk_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU calls it an input/output error, which leads nobody to the disk."""
    _free(monkeypatch, 0)
    with pytest.raises(HostError, match="No space left on device") as caught:
        migration.send(_fails, tmp_path / "state", threading.Event())
    assert "free some space" in str(caught.value.hint)


def test_other_failure_is_qemus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room on the disk its own words are told."""
    _free(monkeypatch, 1 << 30)
    with pytest.raises(HostError, match="ram_save_setup failed"):
        migration.send(_fails, tmp_path / "state", threading.Event())
