"""iPXE, which boots from the network, and is also the network card's ROM in QEMU."""

from vmtests.boot.rules import LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_HINT = "the boot server must answer and have the file; a machine that should boot from its disk had nothing on it"

SPEAKER = Speaker(
    name="iPXE",
    stage=Stage.FIRMWARE,
    source="ipxe src/usr/autoboot.c, src/usr/ifmgmt.c, src/core/errno.c",
    signs=(
        sign(
            Stage.FIRMWARE,
            r"iPXE (?:\d|initialising devices)|iPXE \(http|Open Source Network Boot Firmware",
            "iPXE 1.21.1 -- Open Source Network Boot Firmware -- https://ipxe.org",
        ),
    ),
    failures=(
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r"(?:Could not (?P<act>boot|select|start|configure|describe|fetch|load|exec|download).{0,120}: |"
            r"(?P<url>(?:https?|tftp|nfs|ftp)://\S{1,300}?)\.{2,} ?)(?P<why>.{0,160} "
            r"?\(https?://ipxe\.org/(?:err/)?[0-9a-f]{6,8}\))",
            "iPXE failed: {url} {why}",
            _HINT,
            "http://192.0.2.1/vmlinuz... No such file or directory (https://ipxe.org/2d0c618e)",
            stages=LOADING,
            owner=Owner.HOST,
        ),
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r"(?P<what>Configuring \(.{1,40}\)\.{2,} ?(?:No configuration methods succeeded|Error).{0,100}"
            r"|Waiting for link-up on net\d\.{2,} ?.{0,20}(?:Down|Unknown).{0,100}"
            r"|Nothing to boot: .{1,120}|No more network devices|Exiting iPXE|.{0,60}No configuration methods "
            r"succeeded.*)",
            "iPXE found nothing to boot: {what}",
            _HINT,
            "Nothing to boot: No such file or directory (https://ipxe.org/2d03e13b)",
            stages=LOADING,
            layer=Layer.OBJECT,
            owner=Owner.HOST,
        ),
        rule(
            Cause.NETWORK_BOOT_FAILED,
            r"iPXE> ?$",
            "iPXE waits for commands in its shell",
            _HINT,
            "iPXE> ",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            owner=Owner.HOST,
            prompt=True,
        ),
    ),
)
