"""A small disk that has everything that a fault breaks, built once by the project's own builder."""

from pathlib import Path

import pytest

from vmtests.contract import Contract
from vmtests.faults import cpio
from vmtests.host.architecture import GUEST
from vmtests.host.tools import Toolbox
from vmtests.image.assemble import assemble
from vmtests.image.reference import _fstab
from vmtests.image.spec import ImageSpec, StoreSpec

SYSTEM = "/nix/store/00000000000000000000000000000000-system"
ENTRY = f"""title Test image
linux /EFI/nixos/kernel.efi
initrd /EFI/nixos/initrd.efi
options init={SYSTEM}/init root=fstab console=ttyS0,115200n8
"""
SCRIPT = f"#!{SYSTEM}/bin/bash\n# What has to be so before the system's own init runs.\n"


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox) -> Path:
    """A raw disk that obeys the contract; its programs are texts."""
    work = tmp_path_factory.mktemp("faults")
    boot, overlay = contract.boot, contract.store.overlay_options("/sysroot")
    members: list[cpio.Member] = []
    for path, text in {
        "/etc/sysroot-fstab": _fstab(contract),
        f"/etc/systemd/system/{contract.units.make_upper}": (
            f"RequiresMountsFor=/sysroot\nExecStart=mkdir {overlay['upperdir']} {overlay['workdir']}\n"
        ),
        f"/usr/lib/systemd/system/{contract.units.switch_root}": "ExecStart=systemctl --no-block switch-root\n",
        "/usr/lib/modules/6.12.1-test/kernel/erofs.ko": "erofs",
        "/usr/lib/modules/6.12.1-test/kernel/overlay.ko": "overlay",
        "/usr/lib/modules/6.12.1-test/kernel/virtio_scsi.ko": "virtio_scsi",
        "/usr/lib/modules/6.12.1-test/kernel/ahci.ko": "ahci",
    }.items():
        cpio.put(members, path, text.encode())
    # A real program: no other can be signed.
    program = (toolbox.root("systemd-repart") / "usr/lib/systemd/boot/efi" / GUEST.systemd_boot).read_bytes()
    contents = {
        boot.loader: program,
        boot.loader_config: b"timeout 0\n",
        boot.entry: ENTRY.encode(),
        boot.kernel: program,
        boot.initrd: cpio.pack(members),
    }
    esp = {}
    for index, (target, content) in enumerate(contents.items()):
        esp[target] = work / f"esp-{index}"
        esp[target].write_bytes(content)
    store = work / "store" / SYSTEM.rpartition("/")[2]
    store.mkdir(parents=True)
    (store / "prepare-root").write_text(SCRIPT)
    (store / "data").write_bytes(b"\x55" * (24 << 20))  # a store that can be cut
    etc = work / "etc/systemd/system"
    etc.mkdir(parents=True)
    described = {
        "version": 1,
        "name": "test",
        "esp": esp,
        "store": StoreSpec(directory=store.parent, paths=(SYSTEM,)),
    }
    spec = ImageSpec(**described)  # type: ignore[arg-type]
    made = work / "disk.raw"
    assemble(spec, made, toolbox)
    return made
