"""systemd-boot, and systemd's stub of unified kernel images."""

from vmtests.boot.rules import EARLY, LOADING, MEMORY_HINT, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_AT = r"(?:\S{1,100}\.c:\d{1,6}[@:]\w{1,60}: )?"  # file and line since 254
_ENTRY = "the boot entry must name a kernel and an initrd that are on the ESP, for the machine's architecture"

SPEAKER = Speaker(
    name="systemd-boot",
    stage=Stage.BOOTLOADER,
    source="systemd src/boot/{boot,stub,initrd,linux,secure-boot,util}.c",
    signs=(
        sign(Stage.BOOTLOADER, r"(?:systemd-boot |Boot in \d+ s\.|Reboot Into Firmware Interface)", "Boot in 3 s."),
        sign(
            Stage.BOOTLOADER,
            r"(?:Enrolling secure boot keys|.{0,40}[Ss]ecure boot keys (?:successfully )?enrolled|Custom Secure "
            r"Boot keys "
            r"successfully enrolled).{0,100}$",
            "Custom Secure Boot keys successfully enrolled, rebooting the system now!",
            restart=True,
        ),
    ),
    failures=(
        # xmalloc_pages() and efi_assert(): it halts.
        rule(
            Cause.OUT_OF_MEMORY,
            r"\S{1,100}@efi_assert: .{1,60}Assertion '.{0,100}AllocatePages.{0,200}' failed",
            "the boot loader had not enough memory",
            MEMORY_HINT,
            "../src/boot/util.c:10@efi_assert: systemd-boot: Assertion 'BS->AllocatePages(type) == EFI_SUCCESS' "
            "failed",
            stages=LOADING,
            owner=Owner.HOST,
            grace=0.25,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:\S{1,100}@efi_assert: )?systemd-(?:boot|stub): (?P<what>Assertion '.{1,200}' failed.{0,200})$",
            "the boot loader gave up: {what}",
            "another version of it, or another way to start it, may do",
            "systemd-boot: Assertion 'prefix' failed at ../src/boot/efi/stub.c:2680@cmdline_append, halting.",
            stages=EARLY,
            weight=Weight.CAUSE,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            _AT + r"(?:Error (?:loading|preparing)|Failed to execute) .{1,600}: Out of resources$",
            "the boot loader had not enough memory for kernel and initrd",
            "give the machine more memory, or make the initrd smaller",
            "Error preparing initrd: Out of resources",
            stages=EARLY,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
        # It was read for its .osrel; EDK2 says so of a file for which there is no memory (CoreLoadImageCommon()).
        rule(
            Cause.OUT_OF_MEMORY,
            _AT + r"(?P<what>Error loading \\EFI\\Linux\\.{1,500}\.efi: Not found)$",
            "the firmware cannot load the unified kernel image, which is there: {what}",
            MEMORY_HINT,
            r"Error loading \EFI\Linux\debian-6.12.efi: Not found",
            stages=LOADING,
            owner=Owner.HOST,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
        rule(
            Cause.SECURE_BOOT_REFUSED,
            _AT + r"(?P<what>(?:Error loading|Failed to (?:load|execute|start)) .{1,600}: (?:Access denied|Security "
            r"(?:policy )?violation))$",
            "secure boot refused the kernel: {what}",
            "sign the kernel with a key that the firmware or shim knows, or boot without secure boot",
            r"Error loading \EFI\nixos\kernel.efi: Access denied",
            stages=LOADING,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
        rule(
            Cause.KERNEL_INVALID,
            _AT + r"(?P<what>Error loading .{1,600}: (?:Unsupported|Load error|Volume corrupt\w*))$",
            "the boot loader cannot start the kernel: {what}",
            "the kernel on the ESP must be a whole EFI program for the machine's architecture",
            r"Error loading \EFI\nixos\kernel.efi: Load error",
            stages=LOADING,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
        rule(
            Cause.INITRD_MISSING,
            _AT + r"(?P<what>Error preparing initrd: Not found)$",
            "the boot loader finds no initrd: {what}",
            "the boot entry must name an initrd that is on the ESP",
            "Error preparing initrd: Not found",
            stages=LOADING,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            _AT + r"(?!.{0,900}, ignoring)(?!Error loading default entry)"
            r"(?P<what>(?:Error (?:loading|preparing|executing|opening|getting)|Failed to (?:execute|start)) "
            r".{1,600}: .{1,60}"
            r"|No loader found\..{0,120}|No configuration file found\b.{0,120})$",
            "the boot loader failed: {what}",
            _ENTRY,
            "No loader found. Configuration files in \\loader\\entries\\*.conf are needed.",
            stages=EARLY,
            grace=1.0,
            weight=Weight.CAUSE,
            flags=2,
        ),
    ),
)
