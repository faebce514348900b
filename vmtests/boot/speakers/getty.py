"""getty, login, and cloud-init's last words: what a system says when it is up."""

from vmtests.boot.rules import SYSTEMD, Layer, Speaker, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="getty, login, cloud-init",
    stage=Stage.USERSPACE,
    source="util-linux term-utils/agetty.c, busybox loginutils/getty.c, cloud-init cloudinit/cmd/main.py",
    signs=(
        sign(
            Stage.USERSPACE,
            r"Cloud-init v\. \S+ running '(?:init|modules)[:\w-]{0,20}'",
            "cloud-init[1514]: Cloud-init v. 20.1 running 'modules:final' at Thu, 14 Jan 2021 16:20:05 +0000.",
        ),
        # cloud-final.service starts behind multi-user.target.
        sign(
            Stage.USERSPACE,
            r"(?:Cloud-init v\. \S+ finished at|libguestfs: appliance is up)",
            "cloud-init[1514]: Cloud-init v. 20.1 finished at Thu, 14 Jan 2021 16:20:06 +0000. Up 10.20 seconds",
            ready=True,
        ),
    ),
    failures=(
        rule(
            Cause.PROVISIONING_FAILED,
            r"(?P<what>.{0,120}(?:cc_\w{1,40}\.py\[(?:ERROR|CRITICAL)\]|util\.py\[(?:ERROR|CRITICAL)\]"
            r"|stages\.py\[(?:ERROR|CRITICAL)\]|Failed to (?:fetch|load) (?:user-?data|metadata"
            r"|data source)|No (?:instance )?datasource found|Used fallback datasource|Calling 'http.{1,200}' "
            r"failed).{0,200})$",
            "cloud-init fails: {what}",
            "the machine's metadata must be there, and what it asks for must be possible; /var/log/cloud-init.log "
            "has more",
            "cloud-init[631]: 2024-01-01 12:00:00,000 - cc_growpart.py[ERROR]: 'growpart' failed",
            stages=SYSTEMD,
            layer=Layer.UNIT,
        ),
    ),
)
