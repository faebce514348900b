"""The UEFI firmware of QEMU, Google, Xen and most arm64 boards."""

from vmtests.boot.rules import EARLY, ESP_HINT, LOADING, MEMORY_HINT, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

MENUS = '(?:(?:EFI |UEFI )?(?:Internal )?Shell|BootManagerMenuApp|UiApp|EFI Firmware Setup|Enter Setup|MenuApp)"'
"""Boot options of edk2 that are no boot loader: where the firmware goes when it found none."""

_OPTION = r"BdsDxe: failed to (?:load|start) (?P<option>Boot\w{4} .{1,600}): "
_CRASH = (
    r"(?:[^!]{0,200}!!!! \w{2,10} (?P<what>Exception Type - [^!]{1,60}\)) "
    r"|(?P<arm>(?:Synchronous|SError|IRQ|FIQ) Exception at 0x[0-9A-Fa-f]{8,16}))"
)

SPEAKER = Speaker(
    name="edk2",
    stage=Stage.FIRMWARE,
    source="edk2 OvmfPkg/Library/PlatformBmPrintScLib, MdeModulePkg/Universal/BdsDxe, NetworkPkg, ShellPkg",
    signs=(
        sign(
            Stage.BOOTLOADER,
            rf'BdsDxe: starting Boot[0-9A-F]{{4}} "(?!{MENUS})(?!UEFI (?:PXE|HTTP))',
            'BdsDxe: starting Boot0001 "UEFI QEMU QEMU HARDDISK " from PciRoot(0x0)/Pci(0x1F,0x2)',
            forgives=frozenset({Cause.FIRMWARE_NO_BOOT_DEVICE}),
        ),
        sign(
            Stage.FIRMWARE,
            r"(?:UEFI firmware \(version|UEFI Interactive Shell|BdsDxe: loading Boot|Tianocore/EDK2 firmware)",
            "UEFI firmware (version edk2-stable202308 built at 12:00:00 on Aug 1 2023)",
        ),
        # Compute Engine's own lines; its troubleshooting pages and gcpdiag name them.
        sign(
            Stage.FIRMWARE,
            r"UEFI: (?:Attempting to start|Failed to (?:load|start)) image\.",
            "UEFI: Attempting to start image.",
        ),
    ),
    failures=(
        rule(
            Cause.SECURE_BOOT_REFUSED,
            _OPTION + r"(?P<why>Access Denied|Security Violation)(?: -- rejected.{0,60})?$",
            "secure boot refused the boot loader ({why}) of {option}: it is not signed, or with a key that is not "
            "enrolled",
            "sign the boot loader with a key of the firmware's db, or boot without secure boot",
            'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Access Denied',
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_INVALID,
            _OPTION + r"(?P<why>Load Error|Unsupported|Volume Corrupt)$",
            "the firmware cannot load the boot loader of {option} ({why})",
            "the boot loader must be a whole EFI program for the machine's architecture",
            'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Load Error',
            stages=LOADING,
        ),
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r"BdsDxe: failed to (?:load|start) (?P<option>Boot\w{4} \"UEFI (?:PXE|HTTP)\w{0,4} .{1,600}): "
            r"(?P<why>[\w ]{1,40})$",
            "the firmware could not boot from the network, {option}: {why}",
            "the machine was to boot from the network, or found nothing on its disks and tried that last",
            'BdsDxe: failed to load Boot0004 "UEFI PXEv4 (MAC:525400123456)" from PciRoot(0x0)/Pci(0x2,0x0): Not '
            "Found",
            stages=LOADING,
            layer=Layer.UNIT,
            owner=Owner.HOST,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            _OPTION + r"Out of Resources$",
            "the firmware had not enough memory to load the boot loader of {option}",
            MEMORY_HINT,
            'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Out of Resources',
            stages=LOADING,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            _OPTION + r"(?P<why>[\w ]{1,40})$",
            "the firmware could not start {option}: {why}",
            ESP_HINT,
            'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Not Found',
            stages=LOADING,
        ),
        rule(
            Cause.SECURE_BOOT_REFUSED,
            r"(?:Status: )?(?P<why>Security Violation|Access Denied|Binary is blacklisted)\.?$",
            "secure boot refused what the firmware was to start: {why}",
            "sign the boot loader with a key of the firmware's db that dbx does not revoke, or do without secure boot",
            "Status: Security Violation.",
            stages=LOADING,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>UEFI: Failed to (?:load|start) image)\.?$",
            "the firmware could not start what it was to boot: {what}",
            ESP_HINT,
            "UEFI: Failed to load image.",
            stages=LOADING,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"BdsDxe: No bootable option or device was found"
            rf'|BdsDxe: (?:loading|starting) Boot\w{{4}} "{MENUS}'
            r"|UEFI Interactive Shell v\d|Shell> ?",
            "the firmware found nothing to boot",
            ESP_HINT,
            "BdsDxe: No bootable option or device was found.",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        # ShellPkg/Application/Shell: of no disk there is a name.
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>map: No mapping found\.?)$",
            "the firmware sees no disk: {what}",
            "the disk must be attached, to a controller that this firmware has a driver for",
            "map: No mapping found.",
            stages=LOADING,
        ),
        # NetworkPkg/UefiPxeBcDxe and HttpBootDxe; a disk may be next.
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r" *(?P<what>PXE-[ETM][0-9A-F]{2}: (?!Exiting).{1,200}|(?:Error: )?Could not retrieve NBP file "
            r"size.{0,100}|Error: Server response.+)$",
            "the firmware cannot boot from the network: {what}",
            "the machine was to boot from the network, or found nothing on its disks and tried that last",
            "  PXE-E16: No valid offer received.",
            stages=LOADING,
            layer=Layer.UNIT,
            fatal=True,
            owner=Owner.HOST,
        ),
        # UefiCpuPkg/Library/CpuExceptionHandlerLib, ArmPkg/Library/DefaultExceptionHandlerLib; the dump starts where
        # the cursor was. Behind `starting Boot....` it is a program of the disk that runs.
        rule(
            Cause.FIRMWARE_CRASH,
            _CRASH,
            "the firmware crashed: {what}{arm}",
            "try another firmware build; the dump names the image that crashed",
            "!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!",
            stages=frozenset({Stage.FIRMWARE}),
            owner=Owner.HOST,
            grace=1.0,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.FIRMWARE_CRASH,
            _CRASH,
            "what the firmware had started, or the firmware under it, crashed: {what}{arm}",
            "the dump names the image that crashed: try another boot loader, or another firmware build",
            "Synchronous Exception at 0x00000000BF5E1A8C",
            stages=frozenset({Stage.BOOTLOADER, Stage.KERNEL}),
            grace=1.0,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.FIRMWARE_CRASH,
            r"(?P<what>ASSERT_EFI_ERROR \(.{1,200}|ASSERT(?:_RETURN_ERROR)? .{1,200}\.c\(\d+\): .{1,200})",
            "the firmware, or a program under it, crashed: {what}",
            "try another firmware build; the dump names the image that crashed",
            "ASSERT_EFI_ERROR (Status = Not Found)",
            stages=EARLY,
            owner=Owner.HOST,
            grace=1.0,
            weight=Weight.CAUSE,
        ),
    ),
)
