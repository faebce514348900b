"""shim, which secure boot trusts, and which starts what it trusts."""

from vmtests.boot.rules import EARLY, EFI_STATUS, LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_SIGN = "with secure boot on, the next boot loader must be signed by a key that shim or the firmware knows, and not \
be revoked: use the distribution's signed one, enrol its key, or switch secure boot off"

SPEAKER = Speaker(
    name="shim",
    stage=Stage.BOOTLOADER,
    source="rhboot/shim shim.c, pe.c, sbat.c, mok.c, fallback.c, MokManager.c",
    signs=(
        sign(
            Stage.BOOTLOADER,
            r"(?:UEFI: Attempting to start image|Shim: |(?:shim|pe|mok|sbat|verify)\.c:\d{1,5}:\w{1,60}\(\) )",
            "UEFI: Attempting to start image.",
        ),
        sign(
            Stage.BOOTLOADER,
            r"(?:Reset System|Restarting? system|.{0,60}resetting system)\.?$",
            "Reset System",
            restart=True,
        ),
    ),
    failures=(
        rule(
            Cause.SECURE_BOOT_REFUSED,
            r"(?P<what>(?:Verifi?ying shim SBAT data failed|.{0,60}SBAT self-check failed).{0,200})$",
            "this shim itself is revoked: {what}",
            "install a shim of a newer SBAT level; a level that was set by mistake goes with `mokutil "
            "--set-sbat-policy delete`, while secure boot is off",
            "Verifiying shim SBAT data failed: Security Policy Violation",
            stages=LOADING,
            weight=Weight.CLUE,
        ),
        rule(
            Cause.SECURE_BOOT_REFUSED,
            r"(?P<what>(?:Verification failed|SBAT .{0,40}failed)"
            r".{0,200}|(?:ERROR|Bootloader) (?:has not been verified|Verification failed).{0,200}"
            r"|.{0,200}(?:Security Policy Violation|Security Violation|Access Denied)(?: .{0,100})?|Invalid image"
            r"|.{0,80}\(0x1A\) Security Violation.{0,100})$",
            "secure boot refused what shim was to start: {what}",
            _SIGN,
            "Verification failed: Access Denied",
            stages=LOADING,
            weight=Weight.CLUE,
        ),
        # shim.c, exit_boot_services() hook: it waits, and switches the machine off.
        rule(
            Cause.SECURE_BOOT_REFUSED,
            r"(?P<what>Bootloader has not verified loaded image\.|System is compromised\. +halting\.?)$",
            "shim stops a boot loader that started a kernel unverified: {what}",
            "with secure boot on, the boot loader must have shim verify what it starts: use the distribution's signed "
            "one, or switch secure boot off",
            "Bootloader has not verified loaded image.",
            stages=EARLY,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.BOOTLOADER_MISSING,
            r"(?P<what>Failed to (?:open|read|load image|get (?:root|file)|start) (?:image "
            r")?\S{0,20}(?P<file>\\\S{1,200}?)"
            r" ?(?:-|:) .{1,60})$",
            "shim cannot load what it has to start: {what}",
            "the second boot loader must lie beside shim, under the name that this shim was built with",
            r"Failed to open \EFI\BOOT\grubx64.efi - Not Found",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            rf"(?P<what>start_image\(\) returned .{{1,100}}|Could not (?:find|read|open|load) .{{1,120}}: {EFI_STATUS}"
            r"|Image is (?:too small|not an EFI).{0,60})$",
            "shim could not start the next boot loader: {what}",
            "the second boot loader must lie beside shim, under the name that this shim was built with",
            "start_image() returned Not Found",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?P<what>Something has gone seriously wrong: .{1,200})$",
            "shim gives up: {what}",
            "shim wants the variables and services of a full UEFI: another firmware, or another shim, may do",
            "Something has gone seriously wrong: import_mok_state() failed: Unsupported",
            stages=LOADING,
            grace=1.0,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.PROMPT_WAITS,
            r" {0,4}(?:Shim UEFI key management|Perform MOK management|Press any key to perform MOK management"
            r"|Booting in \d+ seconds?|Continue boot|(?:Enroll|Delete|Reset|View) (?:MOK|[Kk]ey|hash)[\w ]{0,30}"
            r"|Change Secure Boot state|Set MOK password) {0,4}$",
            "shim's key manager waits for somebody to enrol a key",
            "a key was to be enrolled (mokutil --import): answer on the machine's screen, or take the request back",
            "Shim UEFI key management",
            stages=LOADING,
            weight=Weight.WAIT,
            grace=15.0,
        ),
    ),
)
