"""Das U-Boot, the firmware of most small boards."""

from vmtests.boot.rules import EARLY, LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_HINT = "the boot script, extlinux.conf or boot.scr names files that must be on the partition that U-Boot reads"

SPEAKER = Speaker(
    name="U-Boot",
    stage=Stage.FIRMWARE,
    source="u-boot boot/, cmd/, common/image*.c, fs/, net/",
    signs=(
        sign(Stage.FIRMWARE, r"U-Boot [ST]PL \d{4}\.\d\d", "U-Boot SPL 2023.01 (Jan 10 2023 - 12:00:00 +0000)"),
        sign(
            Stage.FIRMWARE,
            r"(?:U-Boot \d{4}\.\d\d|Trying to boot from \w)",
            "U-Boot 2023.01 (Jan 10 2023 - 12:00:00 +0000)",
            forgives=frozenset({Cause.BOOTLOADER_MISSING}),
        ),
        sign(
            Stage.BOOTLOADER,
            r"(?:Retrieving file: |Scanning bootdev |MMC read: dev # |TFTP from server )",
            "Retrieving file: /boot/extlinux/extlinux.conf",
        ),
        # Something was read: what it had tried before, and found empty, is no matter.
        sign(
            Stage.BOOTLOADER,
            r"(?:Found U-Boot script |## (?:Executing script|Booting kernel"
            r"|Loading (?:kernel|loadables|init Ramdisk|fdt)|Flattened Device Tree)"
            r"|\d{1,10} bytes read in \d|Found /.{0,60}extlinux\.conf|Booting /(?:efi|EFI).+)",
            "## Booting kernel from Legacy Image at 42000000 ...",
            forgives=frozenset({Cause.FIRMWARE_NO_BOOT_DEVICE}),
        ),
        sign(
            Stage.FIRMWARE,
            r"(?:switch to partitions #\d, OK|(?:mmc|usb|nvme|scsi|virtio)\s?\d(?:\(part \d\))? is current device)",
            "switch to partitions #0, OK",
            forgives=frozenset({Cause.FIRMWARE_NO_BOOT_DEVICE}),
        ),
        sign(
            Stage.KERNEL,
            r"Starting kernel \.\.\.",
            "Starting kernel ...",
            forgives=frozenset({Cause.FIRMWARE_NO_BOOT_DEVICE, Cause.KERNEL_INVALID, Cause.NETWORK_BOOT_FAILED}),
        ),
    ),
    failures=(
        # common/spl/spl_{mmc,fat,ext,fit}.c
        rule(
            Cause.BOOTLOADER_MISSING,
            r"(?P<what>(?:spl: |spl_\w{1,40}: |mmc_load_image_raw_sector: ).{0,60}(?:not found|not an? |error|fail"
            r"|no |could not|unsupported|wrong).{0,80}|Could not get FIT buffer of \d+ bytes|SPL: Unsupported Boot "
            r"Device!?)$",
            "U-Boot's first stage (SPL) cannot load the second: {what}",
            "U-Boot itself (u-boot.itb, u-boot.img) must be where this SPL looks for it, on a device that it can "
            "read, and fit into the memory that it has",
            "spl: mmc device not found!!",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:\*\* )?(?P<what>Reading file would overwrite reserved memory)",
            "U-Boot cannot load what it is to start: {what}",
            "the address that it is loaded to (kernel_addr_r, ramdisk_addr_r, fdt_addr_r) must be free on this board",
            "** Reading file would overwrite reserved memory **",
            stages=EARLY,
        ),
        rule(
            Cause.KERNEL_INVALID,
            r"(?P<what>Bad hash value for '.{1,80}|ERROR: (?:board|system|arch)-specific fdt fixup failed.{0,60}"
            r"|ERROR: (?:fdt|.{1,40} image) overwritten.{0,60}|FDT creation failed! hanging)",
            "U-Boot cannot start the kernel: {what}",
            "kernel, initrd and device tree must be whole, for this board and this U-Boot",
            "Bad hash value for 'hash-1' hash node in 'kernel-1' image node",
            stages=EARLY,
        ),
        rule(
            Cause.KERNEL_INVALID,
            r"(?P<what>Bad Linux (?:ARM64|RISCV|ARM) Image magic!|Wrong Image (?:Format|Type) for \w+ command"
            r"|Bad (?:Header|Data) (?:Checksum|CRC|Hash)"
            r"|Could not find (?:a valid )?configuration node|Bad Magic Number|Bad FIT (?:\w+ )?image format!?"
            r"|ERROR: can't get kernel image!|zimage: Bad magic!|Wrong Ramdisk Image Format"
            r"|Ramdisk image is corrupt or invalid"
            r"|ERROR: Did not find a cmdline Flattened Device Tree|FDT and ATAGS support not compiled in.{0,80}"
            r"|Could not find a valid device tree|ERROR: (?:image is not a fdt|fdt move failed).{0,80})",
            "U-Boot cannot start the kernel: {what}",
            "kernel, initrd and device tree must be whole, for this board, and of the kind that the boot command "
            "takes",
            "Bad Linux ARM64 Image magic!",
            stages=EARLY,
        ),
        # What a boot script does without: overlays of the device tree, and an environment.
        rule(
            Cause.KERNEL_MISSING,
            r"(?:\*\* )?(?P<what>(?:File not found|Unable to read file|Failed to load) '?\S{0,200}(?:overlay|fixup"
            r"|\.dtbo|[Ee]nv(?:\.txt|\b)|\.bmp|\.scr)\S{0,100})",
            "U-Boot misses a file that it can do without: {what}",
            _HINT,
            "** File not found /boot/dtb/rockchip/overlay/rk3328-fixup.scr **",
            stages=EARLY,
            layer=Layer.NOTE,
        ),
        rule(
            Cause.KERNEL_MISSING,
            r"(?:\*\* )?(?P<what>(?:File not found|Unable to read file) (?P<file>\S{1,300})|Failed to load '.{1,300}'"
            r"|\*\* (?:Bad device|Invalid partition|No partition table|Unrecognized filesystem).{0,200}"
            r"|Error reading config file|Skipping \S+ for failure retrieving \w+)(?: \*\*)?",
            "U-Boot does not find what it is to load: {what}",
            _HINT,
            "** File not found /boot/Image **",
            stages=EARLY,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>Card did not respond to voltage select!.{0,60}|MMC: no card present|no mmc device at slot \d"
            r"|unable to (?:get|select) (?:descriptor|mmc).{0,60}|\*\* Bad device .{1,80} \*\*|Device \d+: unknown "
            r"device)",
            "U-Boot finds a disk missing: {what}",
            "the disk or card must be attached, and its partition table readable",
            "Card did not respond to voltage select! : -110",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r"(?P<what>TFTP error: .{1,120}|Retry (?:count|time) exceeded;.{0,60}|BOOTP: .{0,20}Retry.+"
            r"|\*\*\* ERROR: `serverip' not set|Could not find (?:any|an) ethernet.{0,60}|No ethernet found\."
            r"|Config file not found)",
            "U-Boot cannot boot from the network: {what}",
            "it tries the network when no disk had anything to boot",
            "TFTP error: 'File not found' (1)",
            stages=LOADING,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?:=>|(?!grub|iPXE|Shell)(?:[A-Za-z][\w.-]{0,20}(?: ?(?:=>|#)|>)|[A-Za-z][\w.() -]{0,30} #)) ?$",
            "U-Boot found nothing that it could boot and waits for commands",
            _HINT,
            "=> ",
            stages=LOADING,
            weight=Weight.WAIT,
            grace=10.0,
        ),
        # arch/arm/lib/interrupts{,_64}.c, arch/riscv/lib/interrupts.c
        rule(
            Cause.FIRMWARE_CRASH,
            r"(?P<what>\"(?:Synchronous Abort|Error|Irq|Fiq)\" handler, esr 0x[0-9a-f]{1,16}.{0,60}|(?:data abort"
            r"|prefetch abort|undefined instruction|software interrupt)$|Unhandled exception: .{1,60})",
            "U-Boot, or a program under it, crashed: {what}",
            "the registers after it say where: try another build of U-Boot, or of what it had started",
            '"Synchronous Abort" handler, esr 0x96000004',
            stages=EARLY,
            layer=Layer.OBJECT,
        ),
        # It tries what comes next: another script, or the same from the start.
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>resetting \.\.\.|SCRIPT FAILED: continuing\.\.\.)",
            "U-Boot could not go on, and tries again: {what}",
            _HINT,
            "SCRIPT FAILED: continuing...",
            stages=LOADING,
            layer=Layer.NOTE,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>.{0,80}### ERROR ### Please RESET the board|SPL: failed to boot from all boot devices)",
            "U-Boot gave up: {what}",
            _HINT,
            "SPL: failed to boot from all boot devices",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
    ),
)
