"""rEFInd, a boot manager for UEFI."""

from vmtests.boot.rules import EFI_STATUS, LOADING, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="rEFInd",
    stage=Stage.BOOTLOADER,
    source="rEFInd refind/{main,launch_efi,lib,screen}.c",
    signs=(
        sign(
            Stage.BOOTLOADER,
            r"(?:rEFInd - |Starting (?:vmlinuz|bzImage)\S*|Starting \S{1,80}\.efi$)",
            "rEFInd - Booting OS",
        ),
    ),
    failures=(
        rule(
            Cause.BOOTLOADER_ERROR,
            rf"(?P<what>(?:Error: )?(?:Invalid loader file!|{EFI_STATUS} (?:while|(?:returned )?from) .{{1,200}})"
            r"|Error: .{1,100} (?:while|(?:returned )?from) .{1,200})$",
            "rEFInd failed: {what}",
            "its entry must name a loader or a kernel that is there, whole, and signed where secure boot is on",
            "Error: Not Found while loading vmlinuz",
            stages=LOADING,
        ),
        rule(
            Cause.PROMPT_WAITS,
            r"\* Hit any key to continue \*",
            "rEFInd waits for a key after an error",
            "the error before it says what is missing",
            "* Hit any key to continue *",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            grace=1.5,
            prompt=True,
        ),
    ),
)
