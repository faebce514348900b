"""GRUB, from its core image to its menu."""

from vmtests.boot.rules import LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_FILE = r"(?:\S{1,120}\.c:\d{1,6}: ?)?"  # with file and line since 2.06 (kern/err.c, grub_error())
_ERROR = rf"error: {_FILE}"

SPEAKER = Speaker(
    name="GRUB",
    stage=Stage.BOOTLOADER,
    source="GRUB grub-core/kern/{main,err,rescue_reader}.c, normal/{main,menu}.c, loader/, fs/fshelp.c, "
    "commands/search.c, kern/efi/sb.c",
    signs=(
        sign(
            Stage.BOOTLOADER,
            r"error: \S{0,20}grub-core/",
            "error: ../../grub-core/kern/disk_common.c:26:attempt to read or write outside",
        ),
        sign(
            Stage.BOOTLOADER,
            r"(?:Welcome to [Gg][Rr][Uu][Bb]!|GRUB loading\.{0,2}|GNU GRUB +version)",
            "Welcome to GRUB!",
        ),
        sign(
            Stage.BOOTLOADER,
            r" *(?:Booting [`'].+'?|Loading initial ramdisk ?.{0,80}\.\.\.)$",
            "  Booting `Debian GNU/Linux'",
        ),
        # What it could not read before was neither kernel nor initrd.
        sign(
            Stage.BOOTLOADER,
            r" *Loading Linux ?.{0,80}\.\.\.$",
            "Loading Linux 6.1.0-9-amd64 ...",
            forgives=frozenset({Cause.KERNEL_INVALID}),
        ),
    ),
    failures=(
        rule(
            Cause.SECURE_BOOT_REFUSED,
            _ERROR
            + r"(?P<what>.{0,80}(?:bad shim signature|invalid signature|has invalid signature|shim protocol not found"
            r"|prohibited by secure boot policy|verification requested but nobody cares|can't find (?:a )?valid "
            r"signature|kernel must be signed|shim_lock).{0,200}?)\.?$",
            "secure boot refused the kernel: {what}; it is not signed with a key that shim or the firmware knows",
            "sign the kernel with a key that is enrolled, use the distribution's signed one, or switch secure boot "
            "off",
            "error: ../../grub-core/kern/efi/sb.c:182:bad shim signature.",
            stages=LOADING,
        ),
        # What it can do without: a serial port, a video mode, a font, a translation (normal/main.c, gettext.c).
        rule(
            Cause.BOOTLOADER_ERROR,
            _ERROR
            + r"(?P<what>file `\S{1,200}/(?!normal|linux|boot|efi)\w{1,40}\.mod' not found|.{0,120}(?:serial port"
            r"|terminal|video mode|gfx|font|locale|gettext|theme|environment block|sparse file|diskfilter writes"
            r"|can't find command [`'](?!linux|initrd|chain|config|normal|search|insmod|set|if|\[)"
            r"|no suitable|keymap).{0,200}?)\.?$",
            "GRUB misses something that it can do without: {what}",
            "GRUB goes on without it; what kept it from going on was not said",
            "error: term/serial.c:grub_cmd_serial:278:serial port `com0' isn't found.",
            stages=LOADING,
            layer=Layer.NOTE,
            fatal=False,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            _ERROR + r"(?P<what>(?:out of memory|cannot allocate (?:kernel|initrd|\w+ )?.{0,60}).{0,60}?)\.?$",
            "GRUB had not enough memory: {what}",
            "give the machine more memory, or make the initrd smaller",
            "error: ../../grub-core/kern/mm.c:552:out of memory.",
            stages=LOADING,
        ),
        rule(
            Cause.PARTITION_MISSING,
            _ERROR
            + r"(?P<what>(?:no such device: (?P<device>.{1,120}?)|no such (?:partition|disk)|disk `.{1,80}' not found"
            r"|(?:hd|cd|fd)?\d?.{0,20}unknown device.{0,60}))\.?$",
            "GRUB does not find the disk or file system that it looks for: {what}",
            "GRUB was told a UUID or a disk that this machine does not have: install it again, or make its grub.cfg "
            "for the file system that is there",
            "error: no such device: 23453b17-1da3-4b63-8508-ea7931a0a4ab.",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            _ERROR + r"(?P<what>file [`'].{1,300}?' not found|[`'].{1,300}?' not found)\.?$",
            "GRUB does not find a file: {what}",
            "the paths in grub.cfg must be those on the file system that GRUB reads",
            "error: file `/boot/vmlinuz-6.1.0' not found.",
            stages=LOADING,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            _ERROR + r"(?P<what>you need to load the kernel first.{0,60}?)\.?$",
            "GRUB has no kernel to start: {what}",
            "an error before this one says why the kernel was not loaded",
            "error: you need to load the kernel first.",
            stages=LOADING,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.KERNEL_INVALID,
            _ERROR
            + r"(?P<what>(?:invalid (?:magic number|file|arch|EFI)|premature end of file|not (?:a|correct|an) |kernel "
            r"(?:too old|doesn't support)|unsupported|attempt to read or write outside|.{0,60}(?:is corrupt|checksum))"
            r".{0,200}?)\.?$",
            "GRUB cannot load the kernel or the initrd: {what}",
            "the file is damaged, cut, or of another architecture: write it again",
            "error: premature end of file /boot/initrd.img.",
            stages=LOADING,
        ),
        # kern/mm.c, get_header_from_pointer(): grub_fatal(), behind which only a key helps.
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?P<what>(?:(?:alloc|free) magic is broken|double free|unaligned pointer|out of range pointer) (?:at )?"
            r"0x[0-9a-f]{1,16}\b.{0,40})$",
            "GRUB's memory was overwritten, and it gave up: {what}",
            "a file that it read (a theme, a font, an ISO that was written as a file) or a firmware that it does not "
            "fit: write GRUB and its files again, of one version",
            "alloc magic is broken at 0x7b9cd6a0: 0",
            stages=LOADING,
            weight=Weight.CAUSE,
            grace=1.0,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            # What other programs say of errors: Python, Nix, test drivers.
            _ERROR + r"(?P<what>(?!\[|Can't |Could not |Failed |Unable |builder for|build of|creating |timed out )"
            r".{1,400}?)\.?$",
            "GRUB failed: {what}",
            "its configuration or its modules name something that is not there, or that it cannot read",
            "error: unknown filesystem.",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:Entering rescue mode\.\.\.|grub rescue> ?)$",
            "GRUB ended in its rescue shell",
            "GRUB's core image does not find its modules: install it again on this disk",
            "Entering rescue mode...",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"grub> ?$",
            "GRUB found no configuration and waits for commands",
            "GRUB needs its grub.cfg where it was told at its installation to look for it",
            "grub> ",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        # GRUB 0.97 stage2/common.c, err_list; stage 1.5 says the number alone.
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?P<what>Error \d{1,2}(?:: [A-Z].{1,80})?)$",
            "GRUB (legacy) failed: {what}",
            "in GRUB 0.97, 15 is a file that is not there, 17 a file system that it cannot read, 18 and 25 a disk "
            "that the BIOS cannot read, 21 and 22 a disk and a partition that are not there, 28 too little memory",
            "Error 17: Cannot mount selected partition",
            stages=frozenset({Stage.BOOTLOADER}),
        ),
        # disk/cryptodisk.c, grub_cryptodisk_scan_device_real()
        rule(
            Cause.UNLOCK_WAITS,
            r"(?P<what>Enter passphrase for (?:[hcf]d\d|lvm|md|ahci|ata|usb|ieee|crypto|nvme|virtio)\S{0,60} "
            r"\(\S{1,60}\)): ?$",
            "GRUB waits for the passphrase of an encrypted disk: {what}",
            "GRUB's own files lie on an encrypted disk: somebody must type it, or /boot must be a plain file system",
            "Enter passphrase for hd0,gpt2 (3b5a1c3c2f2c4c0f8c7d6ad1c8b9e2f1): ",
            stages=LOADING,
            weight=Weight.WAIT,
        ),
        # Behind any error it waits ten seconds, and then boots what it has loaded, the next entry, or goes back to the
        # menu (normal/menu.c, grub_menu_execute_entry(); normal/term.c, grub_wait_after_message()).
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:Press any key to continue ?\.\.\.)+ ?$",
            "GRUB could not boot its entry",
            "the error before says why: the entry's kernel and initrd must be there and whole",
            "Press any key to continue...",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            grace=1.5,
            patience=12.0,
            prompt=True,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"Failed to boot both default and fallback entries\. ?$",
            "GRUB could not boot its entry",
            "the error before says why: the entry's kernel and initrd must be there and whole",
            "Failed to boot both default and fallback entries.",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            grace=1.5,
            prompt=True,
        ),
        rule(
            Cause.BOOT_MENU,
            r" *Use the (?:\S{1,4} and \S{1,4}|\S{1,12}) (?:arrow )?keys to (?:select|change)",
            "GRUB shows its menu and waits for a key",
            "set a timeout in grub.cfg (GRUB_TIMEOUT), and GRUB_RECORDFAIL_TIMEOUT",
            "      Use the ^ and v keys to select which entry is highlighted.",
            stages=LOADING,
            layer=Layer.NOTE,
            fatal=False,
        ),
    ),
)
