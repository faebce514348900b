"""rust-hypervisor-firmware, the small firmware of Cloud Hypervisor."""

from vmtests.boot.rules import EARLY, LOADING, Speaker, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="Rust Hypervisor Firmware",
    stage=Stage.FIRMWARE,
    source="cloud-hypervisor/rust-hypervisor-firmware src/main.rs, src/efi, src/bootloader (loader.rs)",
    signs=(
        sign(Stage.FIRMWARE, r"Booting with (?:PVH|FDT) Boot Protocol", "Booting with PVH Boot Protocol"),
        sign(
            Stage.BOOTLOADER,
            r"(?:Found bootloader \(|Executable loaded|Using EFI boot\.)",
            "Found bootloader (BOOTX64.EFI)",
        ),
        sign(Stage.BOOTLOADER, r"Jumping to kernel", "Jumping to kernel"),
    ),
    failures=(
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>Failed to (?:find|create) .{1,120}|Unable to boot from any virtio-blk device"
            r"|Error (?:configuring|finding|opening).{1,200})",
            "the firmware found nothing to boot: {what}",
            "the disk needs an EFI system partition with a loader entry or a boot loader under \\EFI\\BOOT",
            "Unable to boot from any virtio-blk device",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_INVALID,
            r"(?P<what>(?:Relocation|Reloc) .{0,60}(?:failed|invalid).{0,60}|Unsupported (?:image|machine).{0,80})",
            "the firmware cannot start the program that it loaded: {what}",
            "this firmware is no full UEFI: boot with the firmware that the boot loader was made for (OVMF), or the "
            "kernel directly",
            "Relocation failed: Unsupported",
            stages=EARLY,
        ),
    ),
)
