"""Limine, a boot loader for BIOS and UEFI."""

from vmtests.boot.rules import LOADING, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="Limine",
    stage=Stage.BOOTLOADER,
    source="limine common/lib/panic.s2.c, common/menu.c, common/protos/{linux,limine,multiboot}.c",
    signs=(sign(Stage.BOOTLOADER, r"Limine \d|limine: Loading", "Limine 8.6.0"),),
    failures=(
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:PANIC: |limine: )(?P<what>(?:linux|limine|multiboot|efi|chainload|config|pmm|stage\d)?:? ?.{0,40}"
            r"(?:[Ff]ail|[Ii]nvalid|not found|[Nn]o |[Cc]annot|[Cc]ould not|[Uu]nable|checksum|hash).{0,200})",
            "Limine gives up: {what}",
            "limine.conf must name a kernel and modules that are on the volume, with hashes that fit",
            "PANIC: linux: Failed to open kernel with path `boot():/vmlinuz`. Is the path correct?",
            stages=LOADING,
            weight=Weight.CAUSE,
            grace=1.0,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?P<what>Stage 3 (?:file )?not found!?|!! (?:Stage|Limine).{1,80}|Configuration file not found\.?)",
            "Limine does not find its own files: {what}",
            "install Limine again on this disk (limine bios-install), with limine-bios.sys and limine.conf on a "
            "volume",
            "!! Stage 2 not found",
            stages=LOADING,
            weight=Weight.CAUSE,
            grace=1.0,
        ),
    ),
)
