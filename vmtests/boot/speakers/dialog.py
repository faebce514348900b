"""dialog(1), whiptail and newt, in which installers and first-boot wizards speak."""

from vmtests.boot.rules import STAGE1, SYSTEMD, Layer, Speaker, Weight, rule
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="dialog",
    stage=Stage.USERSPACE,
    source="dialog buttons.c, newt button.c; OSInside/kiwi dracut modules, jeos-firstboot, debian-installer; "
    "subiquity subiquitycore/ui/buttons.py",
    general=True,
    failures=(
        rule(
            Cause.UNIT_FAILED,
            r"[│|x] {1,4}(?P<what>(?:Failed|Error|ERROR|Cannot|Could not|Unable|No )\b.{3,120}?) {1,80}[│|x]$",
            "a dialog waits for somebody to read it: {what}",
            "what it says went wrong before; its program's own log has more",
            "│ Failed to kexec boot system                  │",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # debian-installer main-menu; subiquity subiquity/server, ui/views/error.py
        rule(
            Cause.UNIT_FAILED,
            r".{0,40}(?P<what>Installation step failed|The failing step is: .{1,80})$",
            "a step of the installation failed: {what}",
            "the installer's log on its second console, or in /var/log/syslog, says why",
            "Installation step failed",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.PROVISIONING_FAILED,
            r"(?P<what>An error occurred\. Press enter to start a shell)$",
            "the installer gave up, and waits: {what}",
            "its last lines say what it was at: autoinstall's file may be wrong",
            "An error occurred. Press enter to start a shell",
            stages=SYSTEMD,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.PROMPT_WAITS,
            r"[ │|xq*]{0,80}<(?: {1,6}|)(?:OK|Ok|Cancel|Yes|No|Next|Continue|Go Back|Finish|Exit)(?: {1,6}|)>"
            r"[ │|xq*<>\w]{0,120}$| {2,60}\[ (?:Continue|Done|View|Try again|Close|Back)\b[^\]]{0,60}\]$",
            "a dialog on the console waits for somebody to answer",
            "a first-boot wizard or an installer: set what it asks for in the image, or on the kernel's command line",
            "          │         <  OK  >      <Cancel>          │",
            stages=SYSTEMD,
            weight=Weight.WAIT,
            layer=Layer.OBJECT,
            grace=10.0,
        ),
    ),
)
