"""A guest of another distribution: its commands run on this host, with its own /dev, /sys and /proc."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.image.check import Slice
from vmtests.image.filesystem import FileSystem
from vmtests.image.image import Image
from vmtests.image.inspect import Inspection
from vmtests.image.layout import Volume
from vmtests.image.source import Format
from vmtests.sizes import GIB
from vmtests.testing import FakeVm

_PATH = re.compile(r"(?<![\w/.-])/(?:dev|sys|efi|boot)/")  # where a word begins

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"


class Sparse:
    """A disk of any size with nothing on it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return zeros."""
        return bytes(max(0, min(length, self.size - offset)))


class Foreign(FakeVm):
    """A guest whose files are below `root`; `mountinfo` and `devices` are what it tells, the latter by lsblk.

    `said` has the answers to what no file answers, by how the command begins.
    """

    def __init__(
        self, results: Path, *, built: int = 0, label: str = "root", holds: str = "ext4", size: int = 0
    ) -> None:
        volume = Volume(
            number=1,
            label=label,
            type="root-x86-64",
            unique="",
            content=Slice(Sparse(size), 0, built),
            system=FileSystem(type=holds),
        )
        inspection = Inspection(path=results, format=Format.RAW, size=size, checks=(), volumes=(volume,))
        super().__init__(
            image=Image(name="foreign", path=results, modules=None, inspection=inspection), results=results
        )
        self.root = results / "guest"
        self.mountinfo: list[str] = []
        self.devices: list[dict[str, Any]] = []
        self.said: dict[str, str] = {}

    def write(self, path: str, data: bytes | str | int) -> None:
        """Write a file of the guest."""
        (place := self.root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if isinstance(data, bytes) else f"{data}\n".encode())

    def partition(self, name: str, start: int, size: int, disk: int) -> None:
        """Have the kernel know a partition of the disk sda."""
        sectors = {f"{name}/start": start // 512, f"{name}/size": size // 512, "size": disk // 512}
        for file, value in sectors.items():
            self.write(f"/sys/devices/block/sda/{file}", value)
        (links := self.root / "sys/class/block").mkdir(parents=True, exist_ok=True)
        (links / name).symlink_to(self.root / "sys/devices/block/sda" / name)

    def run(
        self, command: str, /, timeout: float = 120.0, *, stdin: bytes | None = None, limit: int = OUTPUT_LIMIT
    ) -> Result:
        """Run it."""
        if command == "cat /proc/self/mountinfo":
            return self._says(command, "".join(f"{line}\n" for line in self.mountinfo))
        if command.startswith("lsblk"):
            asked = command.partition("PARTUUID")[2].strip()
            shown = [
                one for one in self.devices if asked in ("", f"/dev/block/{one.get('number')}", f"/dev/{one['name']}")
            ]
            return self._says(command, json.dumps({"blockdevices": shown}) if shown else "", 0 if shown else 32)
        for begins, text in self.said.items():
            if command.startswith(begins):
                return self._says(command, text)
        command = _PATH.sub(f"{self.root}\\g<0>", command)
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=60)
        return Result.of(command, stdout=done.stdout, stderr=done.stderr, exit_code=done.returncode, duration=0.0)

    def _says(self, command: str, text: str, status: int = 0) -> Result:
        return Result.of(command, stdout=text.encode(), stderr=b"", exit_code=status, duration=0.0)


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """One with a partition of 15 GiB, in an image of as many, on a disk of a GiB more."""
    guest = Foreign(tmp_path, built=15 * GIB, size=15 * GIB)
    (guest.root / "dev").mkdir(parents=True)
    return guest
