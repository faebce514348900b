"""How a boot fails before its kernel runs: what firmware, boot loaders and the kernel's EFI stub say."""

import re

from vmtests.boot.rules import EARLY, LOADING, LineRule, Weight
from vmtests.boot.stages import FIRMWARE_MENUS, Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner

_ESP_HINT = "the ESP needs /EFI/BOOT/BOOTX64.EFI on a FAT file system with 512-byte sectors: vmtests inspect IMAGE"


def _early(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern),
        sentence=sentence,
        hint=hint,
        stages=LOADING,
        weight=Weight.CLUE,
    )


def _loader(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    return LineRule(
        cause=cause,
        # With file and line since systemd 254.
        pattern=re.compile(r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?" + pattern, re.IGNORECASE),
        sentence=sentence,
        hint=hint,
        stages=LOADING,
        grace=1.0,
    )


RULES = (
    # edk2 MdeModulePkg/Library/UefiBootManagerLib/BmBoot.c and OvmfPkg/Library/PlatformBmPrintScLib; another boot
    # option may still do.
    _early(
        Cause.SECURE_BOOT_REFUSED,
        r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?P<why>Access Denied|Security Violation)$",
        "secure boot refused the boot loader ({why}): it is not signed, or with a key that is not enrolled",
        "sign the boot loader with a key of the firmware's db, or boot without secure boot",
    ),
    _early(
        Cause.BOOTLOADER_INVALID,
        r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?P<why>Load Error|Unsupported|Volume Corrupt)$",
        "the firmware cannot load the boot loader ({why})",
        "the boot loader must be a whole EFI program for x86-64: vmtests inspect IMAGE",
    ),
    # edk2 MdeModulePkg/Library/BaseMachineBootManagerLib and OvmfPkg/Library/PlatformBmPrintScLib.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"BdsDxe: failed to (?:load|start) .{1,600}: Out of Resources$"),
        sentence="the firmware had not enough memory to load the boot loader",
        hint="give the machine more memory",
        stages=LOADING,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.FIRMWARE_NO_BOOT_DEVICE,
        pattern=re.compile(r"BdsDxe: failed to (?:load|start) (?P<option>Boot\w{4} .{1,600}): (?P<why>[\w ]{1,40})$"),
        sentence="the firmware could not start {option}: {why}",
        hint=_ESP_HINT,
        stages=LOADING,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.FIRMWARE_NO_BOOT_DEVICE,
        pattern=re.compile(
            r"BdsDxe: No bootable option or device was found"
            rf'|BdsDxe: (?:loading|starting) Boot\w{{4}} "{FIRMWARE_MENUS}'
            r"|UEFI Interactive Shell v\d|Shell>|No bootable device\."  # the last: SeaBIOS src/boot.c
        ),
        sentence="the firmware found nothing to boot",
        hint=_ESP_HINT,
        stages=LOADING,
        weight=Weight.SYMPTOM,
        prompt=True,
    ),
    # edk2 UefiCpuPkg/Library/CpuExceptionHandlerLib; the dump starts where the cursor was.
    LineRule(
        cause=Cause.FIRMWARE_CRASH,
        pattern=re.compile(r"[^!]{0,200}!!!! \w{2,10} Exception Type - (?P<what>[^!]{1,60}\)) "),
        sentence="a program under the firmware crashed: exception {what}",
        hint="try another firmware build; the dump names the image that crashed",
        stages=EARLY,
        owner=Owner.HOST,
        grace=1.0,
    ),
    # systemd src/boot/util.h, xmalloc_pages() and efi_assert(): it halts.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"\S{1,100}@efi_assert: .{1,60}Assertion '.{0,100}AllocatePages.{0,200}' failed"),
        sentence="the boot loader had not enough memory",
        hint="give the machine more memory",
        stages=LOADING,
        owner=Owner.HOST,
        grace=0.25,
    ),
    # systemd src/boot/boot.c, log_error_status(): with file and line since 254. Errors that are ignored say
    # so.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(
            r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?"
            r"(?:Error (?:loading|preparing)|Failed to execute) .{1,600}: Out of resources$"
        ),
        sentence="the boot loader had not enough memory for kernel and initrd",
        hint="give the machine more memory, or make the initrd smaller",
        stages=EARLY,
        grace=1.0,
    ),
    # systemd src/boot/boot.c, image_start() and initrd_prepare(); the words are those of EFI's status.
    _loader(
        Cause.KERNEL_INVALID,
        r"(?P<what>Error loading .{1,600}: (?:Unsupported|Load error|Volume corrupt\w*))$",
        "the boot loader cannot start the kernel: {what}",
        "the kernel on the ESP must be a whole EFI program for x86-64: vmtests inspect IMAGE",
    ),
    _loader(
        Cause.INITRD_MISSING,
        r"(?P<what>Error preparing initrd: Not found)$",
        "the boot loader finds no initrd: {what}",
        "the boot entry must name an initrd that is on the ESP: vmtests inspect IMAGE",
    ),
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(
            r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?(?!.{0,900}, ignoring)"
            r"(?P<what>(?:Error (?:loading|preparing|executing)|Failed to (?:execute|start)) "
            r".{1,600}: .{1,60}"
            r"|No loader found\..{0,120}|No configuration file found\b.{0,120})$"
        ),
        sentence="the boot loader failed: {what}",
        hint="the boot entry must name a kernel and an initrd that are on the ESP: vmtests inspect IMAGE",
        stages=EARLY,
        grace=1.0,
    ),
    # GRUB grub-core/kern/err.c, in adopted images; it takes a key or goes on to its own shell after an error.
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"error: (?P<what>.{1,300}?)\.?$"),
        sentence="the boot loader failed: {what}",
        hint="the boot loader's configuration names something that is not there",
        stages=frozenset({Stage.BOOTLOADER}),
        grace=1.0,
    ),
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"grub(?: rescue)?> ?$"),
        sentence="the boot loader found no configuration and waits for commands",
        hint="GRUB needs its grub.cfg where it was told at its installation to look for it",
        stages=frozenset({Stage.BOOTLOADER}),
        prompt=True,
    ),
    # Linux drivers/firmware/efi/libstub, efi_err(): some are survived.
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"EFI stub: ERROR: (?P<what>.{1,300})$"),
        sentence="the kernel's EFI stub failed: {what}",
        hint="look at kernel and initrd on the ESP",
        stages=EARLY,
        weight=Weight.CLUE,
    ),
)
