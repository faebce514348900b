"""GRUB's menus on a disk: where a kernel is looked for, and what is said where that is not known."""

from pathlib import Path

import pytest

from tests.image.test_chain import CPIO, GRUB, ROOT, SHIM, Maker
from vmtests.host.tools import Toolbox
from vmtests.sizes import MIB
from vmtests.testing.images import kernel

LINE = f"root=UUID={ROOT} console=ttyS0"
FILES = {"/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
ENTRY = f"menuentry a {{\n linux {{}}/boot/vmlinuz {LINE}\n initrd {{}}/boot/initrd\n}}\n"


@pytest.fixture
def disk(tmp_path: Path, toolbox: Toolbox) -> Maker:
    """Makes a disk."""
    return Maker(tmp_path, toolbox)


def notes(disk: Maker) -> str:
    """Return what is said of the disk beside its breaches."""
    return "\n".join(str(check) for check in disk.inspect().checks)


def test_a_kernel_is_looked_for_on_the_device_of_its_variable(disk: Maker) -> None:
    """Whatever it is called; the menu is on the ESP, and is decided by files there and by the firmware."""
    menu = f"""search --set=drive1 --label system
set default=1
if [ "$grub_platform" = efi -a -f /EFI/BOOT/grub.cfg -a -d ($drive1)/boot -a ! -e ($drive1)/gone ]; then
  set default=0
fi
{ENTRY.replace("{}", "($drive1)")}menuentry b {{
  linux /gone
}}
"""
    esp = {"/EFI/BOOT/BOOTX64.EFI": GRUB, "/EFI/BOOT/grub.cfg": menu.encode()}
    disk.make(esp, FILES)
    assert disk.said() == []
    assert disk.inspect().steps[-1] == "Linux 6.12.1-test"
    disk.make({**esp, "/EFI/BOOT/grub.cfg": menu.replace("! -e", "-e").encode()}, FILES)
    assert disk.said() == ["kernel /gone, named by /EFI/BOOT/grub.cfg, is not on partition 1 `boot`"]


@pytest.mark.parametrize("way", ["--file --set=root /boot/vmlinuz-9", "--label --set=root gone"])
def test_what_search_does_not_find_may_be_on_what_is_not_read(disk: Maker, way: str) -> None:
    """Where all is read here it is not there, and $root stays what it was."""
    menu = f"search {way}\n{ENTRY.replace('{}', '')}"
    disk.make({"/EFI/BOOT/BOOTX64.EFI": GRUB, "/EFI/BOOT/grub.cfg": menu.encode()})
    assert disk.said() == ["kernel /boot/vmlinuz, named by /EFI/BOOT/grub.cfg, is not on partition 1 `boot`"]
    disk.poke(34 * MIB, bytes(MIB))
    disk.poke(34 * MIB + 0x8000, b"JFS1")
    assert disk.said() == []
    assert "which is not followed" in notes(disk)


def test_what_only_the_machine_knows_is_not_held_against_the_disk(disk: Maker) -> None:
    """A variable in a command line may be right, and a default that is not known names no entry."""
    menu = f"probe --set=u --fs-uuid $root\n{ENTRY.replace('{}', '')}".replace(f"root=UUID={ROOT}", "root=UUID=$u")
    files = {**FILES, "/boot/grub/grub.cfg": menu.encode()}
    disk.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, files)
    assert disk.said() == []
    assert disk.inspect().steps[-1] == "Linux 6.12.1-test"
    menu = f"if cmostest 1:2; then set default=1; fi\n{menu}menuentry b {{\n linux /gone\n}}\n"
    disk.make({"/EFI/BOOT/BOOTX64.EFI": GRUB}, {**files, "/boot/grub/grub.cfg": menu.encode()})
    assert disk.said() == []
    assert "has scripts, or a loader, that are not followed" in notes(disk)


def test_a_shim_starts_what_is_built_into_it(disk: Maker) -> None:
    """SUSE's has other names than upstream's, for GRUB and for the fallback; what lies beside it does not count."""
    root = {**FILES, "/boot/grub2/grub.cfg": ENTRY.replace("{}", "").encode()}
    disk.make({"/EFI/BOOT/BOOTX64.EFI": SHIM, "/EFI/BOOT/grub.efi": GRUB}, root)
    assert disk.said() == []
    assert disk.inspect().steps[1] == "/EFI/BOOT/grub.efi (GRUB)"
    shim = SHIM + "\\fallback.efi\0\\grub.efi".encode("utf-16-le")
    files = {"/EFI/BOOT/BOOTX64.EFI": shim, "/EFI/BOOT/grubx64.efi": GRUB}
    disk.make(files, root)
    assert disk.said() == ["shim finds no /EFI/BOOT/grub.efi to start"]
    files |= {"/EFI/suse/shim.efi": shim, "/EFI/suse/boot.csv": "shim.efi,suse,,x\n".encode("utf-16")}
    disk.make({**files, "/EFI/BOOT/fallback.efi": GRUB, "/EFI/suse/grub.efi": GRUB}, root)
    assert disk.said() == []
    assert disk.inspect().steps[1:3] == ("/EFI/suse/shim.efi (shim)", "/EFI/suse/grub.efi (GRUB)")
