"""Android's init, first and second stage."""

from vmtests.boot.rules import BOOTING, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_INIT = r"init(?: \d{1,3})?: (?:\[libfs_mgr\])?"

SPEAKER = Speaker(
    name="Android",
    stage=Stage.INITRD,
    source="AOSP system/core/init/{first_stage_init,first_stage_mount,service,reboot_utils}.cpp, fs_mgr",
    signs=(
        sign(Stage.INITRD, _INIT + r"init first stage started!", "init: init first stage started!"),
        sign(Stage.USERSPACE, _INIT + r"init second stage started!", "init: init second stage started!"),
    ),
    failures=(
        rule(
            Cause.MOUNT_FAILED,
            _INIT + r"(?P<what>Failed to (?:mount (?:/|required partitions early)|create FirstStageMount).{0,160})$",
            "Android's init cannot mount what it needs: {what}",
            "the partition must be there, whole, and (where AVB guards it) be what vbmeta says of it",
            "init: Failed to mount required partitions early ...",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            _INIT + r"(?:critical process|updatable process|process(?: with updatable components)?) "
            r"'(?P<unit>[^']{1,80})' exited \d{1,3} times before boot completed$",
            "Android's service {unit} ends again and again",
            "logcat, and a tombstone of the process, say why it ends",
            "init: critical process 'zygote' exited 4 times before boot completed",
            stages=BOOTING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.INIT_EXITED,
            _INIT + r"(?P<what>InitFatalReboot: .{1,60})$",
            "Android's init gave up, and restarts the machine: {what}",
            "the lines before it say why",
            "init: InitFatalReboot: signal 6",
            stages=BOOTING,
            weight=Weight.SYMPTOM,
        ),
    ),
)
