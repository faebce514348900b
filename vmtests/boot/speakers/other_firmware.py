"""Firmware that says little more than that it is there: of RISC-V, ARM, POWER and s390, coreboot, Hyper-V, VMware."""

from vmtests.boot.rules import EARLY, EFI_STATUS, LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

SPEAKER = Speaker(
    name="other firmware",
    stage=Stage.FIRMWARE,
    source="riscv/opensbi lib/sbi/sbi_init.c; trusted-firmware-a bl1, bl31; optee_os core; coreboot src/console, "
    "src/lib/prog_loaders.c; "
    "aik/SLOF; qemu pc-bios/s390-ccw; xen tools/firmware/hvmloader, stubdom/grub, extras/mini-os; Bochs BIOS; "
    "OpenCore; UEFI:NTFS; Slim Bootloader's console in its issues 208 and 525; AMI's and Dell's POST as owners quote "
    "it; "
    "Hyper-V's boot summary and VMware's firmware by their makers' documentation, as neither source is public",
    signs=(
        sign(
            Stage.FIRMWARE,
            r"(?:OpenSBI v\d|NOTICE: +(?:BL\d|Booting Trusted Firmware)|[DIE]/TC:|coreboot-\S|SLOF \*|\(d\d+\) HVM "
            r"Loader|Bochs BIOS - |VMware Virtual|LOADPARM=\[|ROM boot: |Hostboot|INFO: +BL\d"
            r"|=+ Intel Slim Bootloader STAGE\w{1,3} =|American Megatrends)",
            "OpenSBI v1.3",
        ),
        sign(
            Stage.FIRMWARE,
            r"\s*(?:(?:Virtual Machine )?Boot Summary:?$|Microsoft Hyper-V UEFI|Attempting to start up from:)",
            "Virtual Machine Boot Summary:",
        ),
        sign(
            Stage.BOOTLOADER,
            r"(?:Find partition success|Load file \S{1,80} \[size)",
            "Load file EFI/BOOT/grub.cfg [size 0x1000]",
            forgives=frozenset({Cause.FIRMWARE_NO_BOOT_DEVICE}),
        ),
        sign(Stage.BOOTLOADER, r"(?:Xen Minimal OS!|LILO \d|ELILO |zIPL v| {0,2}Petitboot )", "Xen Minimal OS!"),
    ),
    failures=(
        rule(
            Cause.SECURE_BOOT_REFUSED,
            r"\s*(?P<what>The (?:(?:un)?signed )?image's (?:hash|certificate|signature).{0,30} "
            r"(?:is not allowed|was denied).{0,20}|The image is not signed.{0,60}"
            r"|.{0,40}hash and certificate are not allowed.{0,20})$",
            "secure boot refused the boot loader: {what}",
            "choose the secure boot template that knows the boot loader's key (for Linux: Microsoft UEFI Certificate "
            "Authority), sign the boot loader, or switch secure boot off",
            "The unsigned image's hash is not allowed (DB)",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_MISSING,
            r"\s*(?P<what>The boot loader (?:did not load an operating system|failed).{0,60}"
            r"|A boot image was not found\.?|No compatible boot ?loader (?:was )?found.{0,60})$",
            "the firmware found no boot loader that it could start: {what}",
            "the disk needs a boot loader for this firmware: for UEFI one in \\EFI\\BOOT of an ESP",
            "The boot loader did not load an operating system.",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"\s*-> (?P<what>EFI .{0,100}(?:Hard Drive|Disk|CD-?ROM|DVD|NVM\w*).{0,60}unsuccessful)\.?$",
            "the firmware could not boot from a disk: {what}",
            "the disk needs an ESP with a boot loader in \\EFI\\BOOT, for this machine's architecture",
            "-> EFI VMware Virtual SCSI Hard Drive (0.0)... unsuccessful.",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"\s*(?P<what>No operating system was loaded\..{0,160}|Operating [Ss]ystem not found\.?"
            r"|Reboot and Select proper Boot device.{0,80}|(?:DISK BOOT FAILURE|Disk boot failure), .{1,80}"
            r"|Missing operating system\.?|Non-[Ss]ystem disk or disk error.{0,60}|No boot device "
            r"(?:available|found).{0,60})$",
            "the firmware found nothing to boot: {what}",
            "the disk must be attached and have a boot loader for this machine's architecture and firmware",
            "No operating system was loaded. Press a key to retry the boot sequence...",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
        # Where POST found something wrong; an offer to enter the setup names no continuation.
        rule(
            Cause.PROMPT_WAITS,
            r"\s*(?P<what>(?:Strike|Press|Hit) (?:the )?<?F1>? ?(?:key )?to (?:[Cc]ontinue|[Rr]esume|Run "
            r"SETUP|boot).{0,80}"
            r"|Press <?F2>? to load default values and continue.{0,40})$",
            "the machine's firmware waits for a key, after something that its self-test found: {what}",
            "the lines before it say what was found; the firmware's setup can be told not to wait",
            "Strike the F1 key to continue, F2 to run the system setup program",
            stages=LOADING,
            owner=Owner.HOST,
            weight=Weight.WAIT,
        ),
        # trusted-firmware-a bl1/bl1_main.c, bl2/bl2_main.c, drivers/io/io_fip.c
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?:ERROR|WARNING): {2,4}(?P<what>(?:BL\d{1,2}: )?(?:Failed to load|Failed to obtain|Firmware Image "
            r"Package header check failed|error initializing fip).{0,120})$",
            "the firmware (TF-A) cannot load a part of itself: {what}",
            "its package (fip.bin) must be whole, where this build looks for it, and signed by a key that it knows",
            "ERROR:   Failed to load BL2 firmware.",
            stages=LOADING,
        ),
        # littlekernel and edk2 of Qualcomm's boards: app/aboot, QcomModulePkg; Rockchip's miniloader and U-Boot.
        rule(
            Cause.KERNEL_INVALID,
            r"(?:\[\d{1,7}\] )?"
            r"(?P<what>ERROR: (?:Unable to find suitable device tree|Appended .{0,40}not found).{0,120}"
            r"|Failed to boot Linux.{0,60}|Unable to boot:\w{1,20})$",
            "the board's boot loader cannot start the kernel: {what}",
            "the boot partition needs a kernel and a device tree for this board, in the format of its boot loader",
            "ERROR: Unable to find suitable device tree for device (206/0x1/0x0)",
            stages=LOADING,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?:\[\d{1,7}\] )?(?P<what>(?:ERROR: )?Could not do normal boot\..{0,60}|try to start rockusb"
            r"|UsbBoot\b.{0,20})$",
            "the board's boot loader gave up and waits for USB: {what}",
            "the lines before it say what it could not use: write the boot partition again",
            "ERROR: Could not do normal boot. Reverting to fastboot mode.",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
        # acidanthera/OpenCorePkg Library/OcBootManagementLib, Platform/OpenCore
        rule(
            Cause.BOOTLOADER_ERROR,
            rf"OC\w{{0,3}}: (?P<what>.{{1,80}} failed - {EFI_STATUS}|System has no boot entries)$",
            "OpenCore cannot start a system: {what}",
            "its config.plist must let it see the disk (drivers, ScanPolicy) and start what lies there (signatures)",
            "OCB: System has no boot entries",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?P<what>Halting on critical error)$",
            "OpenCore gives up: {what}",
            "the lines before it say why",
            "Halting on critical error",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.BOOTLOADER_INVALID,
            r"\[FAIL\] (?P<what>.{0,40}LOAD FAILURE.{0,60})$",
            "UEFI:NTFS cannot start the boot loader: {what}",
            "the boot loader on the NTFS partition must be whole and for this machine's architecture",
            "[FAIL] LOAD FAILURE: [3] Unsupported",
            stages=LOADING,
        ),
        # s390: a processor that waits and lets nobody interrupt it (qemu system/runstate.c; Hercules cpu.c).
        rule(
            Cause.BOOTLOADER_INVALID,
            r"(?P<what>Guest crashed on cpu \d+: .{1,40}|HHC\d{5}I .{0,30}disabled wait state.{0,60})$",
            "the machine's processor was stopped: {what}",
            "the PSW's low half says why (0x4512 and such are zipl's): write the boot record again, for this disk",
            "Guest crashed on cpu 0: disabled-wait",
            stages=EARLY,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.FIRMWARE_CRASH,
            r"(?P<what>Payload not loaded\.|(?:Ram|Rom|Post)\w{0,5} was not loaded!?|Couldn't load romstage\."
            r"|STAGE_\w{1,3}: System halted!)$",
            "the firmware stopped: {what}",
            "the firmware's image lacks a part, or a part that does not fit this machine: the lines before it say "
            "which; "
            "write the firmware again",
            "Payload not loaded.",
            stages=LOADING,
            owner=Owner.HOST,
            weight=Weight.SYMPTOM,
            grace=1.0,
        ),
        # lib/sbi/sbi_trap.c, sbi_trap_error(); each ends in a hart that stands still.
        rule(
            Cause.FIRMWARE_CRASH,
            r"(?P<what>sbi_trap_error: hart\d+: .{1,120}|init_\w{1,20}: .{1,60} failed \(error -\d+\))$",
            "the firmware crashed: {what}",
            "try another build of the firmware; mcause and mepc name what it was doing",
            "sbi_trap_error: hart0: trap handler failed (error -2)",
            stages=EARLY,
            owner=Owner.HOST,
            weight=Weight.SYMPTOM,
            grace=1.0,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>E\d{4}: .{0,60}(?:boot|load).{0,80}|! No (?:EXEC entry|virtio device found|IPL device).{0,40}"
            r"|No (?:NVRAM|boot) .{0,20}(?:device|command).{0,60}|BL\d{1,2}: Failed to load.{0,120}"
            r"|ERROR: +BL\d.{0,120}"
            r"|Unable to load payload.{0,40})",
            "the firmware found nothing to boot: {what}",
            "the disk must be attached and have a boot loader for this machine's architecture and firmware",
            "! No EXEC entry !",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
    ),
)
