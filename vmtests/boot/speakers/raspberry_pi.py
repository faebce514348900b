"""The Raspberry Pi's own boot loaders: the EEPROM's, and start.elf."""

from vmtests.boot.rules import EARLY, LOADING, Layer, Speaker, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_AT = r"(?:(?:\s{0,4}\d{1,4}\.\d\d |MESS:[\d:.]{8,24}:?\s?)(?:\w{1,20}: )?)?"

SPEAKER = Speaker(
    name="Raspberry Pi",
    stage=Stage.FIRMWARE,
    source="raspberrypi documentation: computers/raspberry-pi (bootloader, `BOOT_UART`, `uart_2ndstage`); consoles in "
    "the issues of raspberrypi/{firmware,rpi-eeprom}, as neither program's source is public",
    signs=(
        sign(
            Stage.FIRMWARE,
            _AT + r"(?:RPi: BOOTLOADER |PM_RSTS: 0x|Boot mode: [A-Z-]+ \(\d|NET_BOOT: |USB-PD: )",
            "RPi: BOOTLOADER release VERSION:30de0ba5 DATE: 2023/10/30 TIME: 16:45:10",
        ),
        sign(
            Stage.BOOTLOADER,
            _AT + r"(?:Starting start\w{0,4}\.elf @|Read (?:start\w{0,4}\.elf|config\.txt) +bytes|arasan: "
            r"|(?:Read|Loading) '?/?(?:kernel(?! image)|Image|vmlinuz)\w*|Starting OS)",
            "  4.66 Starting start4.elf @ 0xfec00200 partition 1",
        ),
    ),
    failures=(
        rule(
            Cause.KERNEL_MISSING,
            _AT + r"(?P<what>(?:Could not find kernel(?! image)|Failed to (?:open|load|read) '?\S{0,40}(?:kernel"
            r"|vmlinuz|Image)\S{0,60}).{0,80})$",
            "the Raspberry Pi's firmware does not find the kernel: {what}",
            "config.txt and the kernel that it names must be on the first FAT partition",
            "MESS:00:00:04.700000:0: Could not find kernel",
            stages=EARLY,
        ),
        rule(
            Cause.BOOTLOADER_MISSING,
            _AT + r"(?P<what>(?:Firmware not found|Failed to (?:open|read) start\w{0,4}\.elf|start\w{0,4}\.elf(?: is)?"
            r" (?:not found|not compatible)|This board requires newer software"
            r"|ERROR: (?! ).{0,60}(?:firmware|not compatible)).{0,120})$",
            "the Raspberry Pi's boot loader finds no firmware for this board: {what}",
            "the first FAT partition needs start.elf, fixup.dat and a device tree as new as the board",
            "Firmware not found",
            stages=LOADING,
        ),
        rule(
            Cause.DISK_READ_ERROR,
            _AT + r"(?P<what>FAT read failed @ \d{1,12}.{0,40})$",
            "the Raspberry Pi's boot loader cannot read the card or disk: {what}",
            "write the card again, or take another; see that its adapter and power are good",
            "  7.93 FAT read failed @ 82112",
            stages=LOADING,
            owner=Owner.HOST,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            _AT + r"(?P<what>Failed to open device: '\w{1,20}'.{0,80}|(?:SD|MSD|NVME|NET(?:_BOOT)?|Link)\b.{0,40}"
            r"(?:[Tt]imeout|ERROR|retr(?:y|ies) exceeded).{0,60}|Boot mode: STOP.{0,40})$",
            "the Raspberry Pi's boot loader cannot use a disk: {what}",
            "the card or disk must be attached and readable; BOOT_ORDER says what is tried",
            "Failed to open device: 'sdcard' (cmd 371a0010 status 1fff0001)",
            stages=LOADING,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.KERNEL_INVALID,
            _AT + r"(?P<what>(?:dterror: .{1,120}|Failed to load Device Tree file.{1,120}|Failed to open command line "
            r"file.{1,80}))$",
            "the Raspberry Pi's firmware misses a file: {what}",
            "the device tree of the board and cmdline.txt belong on the first FAT partition",
            "MESS:00:00:02.608463:0: Failed to load Device Tree file 'bcm2710-rpi-3-b.dtb'",
            stages=EARLY,
            layer=Layer.NOTE,
        ),
    ),
)
