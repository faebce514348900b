"""Devices that a command line names beside root=, and a disk that has them or not."""

from pathlib import Path

import pytest

from tests.image.test_chain import BOOT, CPIO, ROOT, Maker
from vmtests.host.tools import Toolbox
from vmtests.image.check import Status
from vmtests.testing.images import kernel

OTHER = "99999999-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (f"rd.luks.uuid=luks-{OTHER}", Status.BREACH),
        (f"luks.name={OTHER}=root", Status.BREACH),
        (f"cryptdevice=UUID={OTHER}:root:allow-discards", Status.BREACH),
        (f"mount.usr=UUID={OTHER}", Status.BREACH),
        (f"mount.usr=UUID={ROOT.upper()}", None),
        (f"systemd.verity_root_data=/dev/disk/by-partuuid/{OTHER}", Status.BREACH),
        ("mount.usr=/dev/mapper/usr systemd.verity_usr_data=/dev/sdb", None),
        (f"resume=UUID={OTHER} resume_offset=1", Status.NOTE),
        (f"rd.luks.options=discard luks={OTHER}", None),
        (f"rd.luks.uuid={OTHER} rd.luks.data={OTHER}=UUID={ROOT}", None),
        (f"rd.luks.name={OTHER}=root luks.options={OTHER}=discard,header=/h:LABEL=keys", None),
        (f"rd.luks.uuid={OTHER} rd.luks.data={OTHER}=PARTUUID={OTHER}", Status.BREACH),
        ("mount.usr=LABEL=system", None),
        ("mount.usr=LABEL=SYSTEM", Status.BREACH),
        ("mount.usr=PARTLABEL=Boot", Status.BREACH),
        ("mount.usr=LABEL=$usr", None),
    ],
)
def test_device_that_is_waited_for_is_on_the_disk(
    line: str, status: Status | None, tmp_path: Path, toolbox: Toolbox
) -> None:
    """Only for what it resumes from does a boot not wait to the end."""
    disk = Maker(tmp_path, toolbox)
    entry = f"linux /vmlinuz\ninitrd /initrd\noptions root=UUID={ROOT} console=ttyS0 {line}\n".encode()
    files = {"/EFI/BOOT/BOOTX64.EFI": BOOT, "/loader/entries/a.conf": entry, "/vmlinuz": kernel(), "/initrd": CPIO}
    disk.make(files)
    found = [check for check in disk.inspect().checks if check.what == "device"]
    assert [check.status for check in found] == [status] * (status is not None)
    assert all("leads nowhere" in check.sentence for check in found)
