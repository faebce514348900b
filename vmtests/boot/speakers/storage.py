"""Linux' file systems and block devices."""

from vmtests.boot.rules import DEVICE_HINT, OVERLAY_HINT, STORE_HINT, Layer, Speaker, rule
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_EROFS = r"erofs(?: \(device \S{1,32}\)|: \(device \S{1,32}\))?: (?:(?:erofs|z_erofs|check)_\w{1,40}: )?"
_EXT4 = r"EXT[234]-fs (?:error )?\((?:device )?(?P<device>\S{1,32}?)\): "
_NEEDED = r"(?!fd\d|sr\d|loop\d|\S{1,20}rpmb)"
_CHECK = (
    "look at the file system with its own checker, without letting it write: e2fsck -fn, xfs_repair -n, btrfs check"
)

SPEAKER = Speaker(
    name="Linux file systems and disks",
    stage=Stage.KERNEL,
    source="Linux fs/{erofs,overlayfs,ext4,jbd2,xfs,btrfs,bcachefs,squashfs,fat,f2fs,ubifs}, "
    "drivers/{mtd,md,nvme,scsi,ata,block}, block/, net/9p",
    failures=(
        rule(
            Cause.EROFS_SUPERBLOCK,
            _EROFS + r"cannot find valid erofs superblock",
            "the kernel finds no erofs where it was to mount one",
            STORE_HINT,
            "erofs: (device vda2): erofs_read_superblock: cannot find valid erofs superblock",
            kernel=True,
        ),
        rule(
            Cause.EROFS_FEATURE,
            _EROFS + r"(?P<what>unidentified .{0,40}feature.{0,80})$",
            "the kernel does not know a feature of the erofs: {what}",
            "make the erofs without that feature, or boot a newer kernel",
            "erofs: (device vda2): check_layout_compatibility: unidentified incompatible feature 40000000, please "
            "upgrade "
            "kernel version",
            kernel=True,
        ),
        rule(
            Cause.EROFS_DAMAGED,
            _EROFS + r"(?P<what>(?:bogus|invalid|corrupted|failed|cannot|unsupported|too|.{1,60}corrupt).{1,200})$",
            "the erofs is damaged: {what}",
            STORE_HINT,
            "erofs: (device vda2): failed to decompress -117 in[4096, 0] out[8192]",
            kernel=True,
        ),
        # fs/overlayfs/{super,params}.c; what the upper file system does not support it does without.
        rule(
            Cause.OVERLAY_WORKDIR,
            r"overlayfs: (?P<what>workdir and upperdir must .{1,60}|failed to resolve '\S{0,300}work\S{0,100}': "
            r"-\d+)$",
            "the overlay cannot be mounted: {what}",
            OVERLAY_HINT,
            "overlayfs: workdir and upperdir must reside under the same mount",
            kernel=True,
        ),
        rule(
            Cause.OVERLAY_UPPERDIR,
            r"overlayfs: (?P<what>failed to resolve '(?P<path>.{1,300}?)': -\d+|filesystem on '.{1,300}' not "
            r"supported.{0,100}"
            r"|upper(?:dir)? .{0,100}(?:failed|not supported|in-use|read-only).{0,100}|upper fs (?!does not ).{1,120}"
            r"|failed to (?:verify (?:upper|index|origin|work)|create directory|set xattr|clone|get).{1,200}"
            r"|maximum fs stacking depth exceeded|missing '?(?:lowerdir|upperdir|workdir)'?.{0,60}"
            r"|.{0,60}overlapping.{0,80}"
            r"|stale file handle.{0,80}|conflicting .{1,60})$",
            "the overlay cannot be mounted: {what}",
            OVERLAY_HINT,
            "overlayfs: failed to resolve '/run/overlayfs/rw': -2",
            kernel=True,
        ),
        # fs/ext4/super.c: what a good mount says is not in it.
        rule(
            Cause.EXT4_SUPERBLOCK,
            _EXT4
            + r"(?P<what>(?:VFS: )?Can't find (?:an )?ext[234] ?filesystem.{0,60}|unable to read superblock.{0,20}"
            r"|bad (?:magic|geometry).{0,120})",
            "the kernel finds no usable ext4 on {device}: {what}",
            "the partition holds another file system or none, is cut, or was written over",
            "EXT4-fs (vda3): VFS: Can't find ext4 filesystem",
            kernel=True,
        ),
        rule(
            Cause.EXT4_FEATURE,
            _EXT4
            + r"(?P<what>(?:couldn't mount (?:RDWR )?because of unsupported optional features|Unrecognized mount "
            r"option"
            r"|Unsupported (?:blocksize|encryption|filesystem)|.{0,60}not supported).{0,120})$",
            "the kernel cannot mount the ext4 on {device}: {what}",
            "make the file system without that feature, or boot a kernel that has it",
            "EXT4-fs (vda3): couldn't mount because of unsupported optional features (10000)",
            kernel=True,
            fatal=False,
        ),
        rule(
            Cause.EXT4_DAMAGED,
            r"EXT[234]-fs (?:error|panic) \(device (?P<device>\S{1,32}?)\): (?P<what>.{1,200})$"
            r"|EXT[234]-fs (?:\((?P<on>\S{1,32}?)\)): (?P<also>(?:get root inode failed|no journal found|group "
            r"descriptors corrupted|"
            r"error loading journal|failed to (?:load|open|initialize)|checksum invalid|corrupt|bad |inode #\d+|"
            r"ext4_check_descriptors|Invalid (?:superblock )?checksum|VFS: Found ext4 filesystem with invalid "
            r"superblock"
            r"|filesystem (?:is )?too large|error |Remounting filesystem read-only|journal transaction).{0,200})$",
            "the file system on {device}{on} is damaged: {what}{also}",
            _CHECK,
            "EXT4-fs error (device vda3): ext4_lookup:1855: inode #2: comm init: deleted inode referenced: 12",
            kernel=True,
        ),
        # fs/jbd2/{journal,recovery}.c
        rule(
            Cause.EXT4_DAMAGED,
            r"(?P<what>JBD2: (?:no valid journal|journal .{0,40}corrupt|.{0,60}recovery failed|Invalid checksum"
            r"|IO error|.{0,40}journal superblock.{0,20}(?:error|fail)).{0,120})",
            "the journal of a file system is damaged: {what}",
            _CHECK,
            "JBD2: Invalid checksum recovering block 0 in log",
            kernel=True,
        ),
        # drivers/mtd/ubi/{attach,build,vtbl}.c, fs/ubifs/{super,recovery,io}.c
        rule(
            Cause.FILESYSTEM_DAMAGED,
            r"(?P<what>(?:UBI error|ubi\d{1,3} error|UBI: error|UBIFS error(?: \(.{1,40}\))?):? (?!.{0,40}bad PEB "
            r"reserv|.{0,60}ECC)(?:cannot open|.{0,30}(?:cannot attach|failed to attach|layout volume was not found"
            r"|bad image sequence number|bad CRC|both volume tables are corrupted|cannot read|bad node"
            r"|not enough .{0,20}PEBs|no free|failed to recover|too small|cannot mount|corrupt)).{0,160})$",
            "the flash's volumes cannot be used: {what}",
            "write the UBI image for this flash again: for its erase block and page size, on the right MTD partition",
            "ubi0 error: ubi_attach_mtd_dev: failed to attach mtd2, error -22",
            kernel=True,
        ),
        rule(
            Cause.FILESYSTEM_DAMAGED,
            r"(?P<what>XFS(?: \(\S{1,32}\))?: (?:Metadata (?:CRC error|corruption)|.{0,60}[Cc]orruption|.{0,60}bad "
            r"magic|Invalid superblock"
            r"|log mount/recovery failed|failed to (?:read|recover)|SB validate failed|Log inconsistent|Internal "
            r"error|Filesystem has "
            r"duplicate UUID|Superblock has unknown|cannot mount|unmount and run).{0,200}"
            r"|BTRFS(?: \w+)?(?: \(device \S{1,32}\))?:? (?:error.{0,20}: )?(?:open_ctree failed|failed to read"
            r"|bad (?:tree|super|fsid)|.{0,60}corrupt"
            r"|parent transid verify failed|devid \d+ uuid \S+ is missing|unable to find|checksum|superblock "
            r"checksum|cannot mount"
            r"|failed to verify|csum failed).{0,200}"
            r"|bcachefs(?: \(.{1,60}?\))?: (?!.{0,160}ENOENT).{0,80}(?:error"
            r"|insufficient|cannot|failed|unsupported|not found).{0,160}"
            r"|F2FS-fs \(\S{1,32}\): (?:Failed|Invalid).{0,150}"
            r"|(?:SQUASHFS error|squashfs): (?:.{0,40}[Uu]nable to read|.{0,60}[Ff]ailed|Can't find a SQUASHFS"
            r"|Xattrs in|zlib|xz|lzo|zstd|Filesystem uses).{0,160}"
            r"|FAT-fs \(\S{1,32}\): (?:bogus|invalid|error|Unrecognized|codepage|IO charset|count of clusters too "
            r"big).{0,120}"
            r"|ISOFS: (?:Unable to identify|.{0,40}changed).{0,80}|(?:ZFS|SPL|WARNING): Pool .{1,120})$",
            "a file system cannot be used: {what}",
            _CHECK,
            "XFS (sda2): Metadata corruption detected at xfs_agi_verify+0x10e/0x120 [xfs], xfs_agi block 0x2",
            kernel=True,
        ),
        # drivers/md/dm-verity-target.c, dm-table.c; drivers/md/dm-integrity.c; fs/verity. Which implementation of the
        # hash is in use it says of every volume.
        rule(
            Cause.VERITY_FAILED,
            r"(?P<what>device-mapper: verity: (?:\S{1,40}: )?(?:data|metadata) block \d+ is corrupted"
            r"|device-mapper: verity: (?!\S{1,40} using ).{1,120}"
            r"|device-mapper: table: .{0,40}verity: .{1,120}|fs-verity .{1,40}: (?:FILE CORRUPTED"
            r"|.{0,60}failed).{0,80}"
            r"|dm-verity device corrupted.{0,60})",
            "verity refuses what it reads: {what}",
            "data, hash tree and root hash must be of one build: the image was changed after it was made, or the "
            "command "
            "line has the hash of another",
            "device-mapper: verity: 253:0: data block 0 is corrupted",
            kernel=True,
        ),
        rule(
            Cause.VOLUME_MISSING,
            r"(?P<what>device-mapper: (?:table|ioctl|core|raid|thin|crypt|mirror): .{1,40}(?:[Ee]rror|[Ff]ail"
            r"|lookup|unknown target|cannot).{0,120}"
            r"|md(?:/raid\S{0,8})?:\S{1,20}: (?:not enough (?:operational )?(?:devices|mirrors)|cannot start dirty"
            r"|failed to run).{0,80}"
            r"|md: .{0,60}(?:cannot|failed|not enough).{0,80})$",
            "a volume cannot be put together: {what}",
            "its disks must all be there, and the kernel must have the target's module",
            "device-mapper: table: 253:0: linear: Device lookup failed",
            kernel=True,
        ),
        # An empty floppy or CD drive, a loop device whose file was taken away and an eMMC's RPMB partition cannot be
        # read, and need not be. A disk may refuse a command that neither reads nor writes, and has time to shut down.
        rule(
            Cause.DISK_READ_ERROR,
            r"(?P<what>(?:blk_update_request: |print_req_error: )?(?:critical (?:medium|target)|I/O|protection"
            r"|timeout|nexus|transport) error"
            rf", dev {_NEEDED}\S{{1,32}}, (?:sector|logical block) \d+.{{0,120}}"
            rf"|Buffer I/O error on dev(?:ice)? {_NEEDED}.{{1,120}}"
            r"|nvme nvme\d+: (?:I/O .{0,40}timeout|Device not ready|controller is down|Removing after|Identify "
            r"Controller failed|Abort|failed to (?!set APST)).{0,120}"
            r"|nvme \S{1,20}: (?!Shutdown timeout set|failed to set APST).{0,60}(?:timeout|not ready|failed"
            r"|error).{0,80}"
            r"|ata\d+(?:\.\d+)?: (?:failed command|error: |.{0,40}(?:SRST failed|link is slow|qc timeout|failed to "
            r"IDENTIFY|COMRESET failed)).{0,120}"
            r"|(?:sd|sr) \d+:\d+:\d+:\d+: .{0,40}(?:FAILED Result|Medium Error|Sense Key : (?:Medium|Hardware)"
            r"|rejecting I/O|timing out).{0,120}"
            r"|virtio_(?:blk|scsi) virtio\d+: .{0,60}(?:fail|timeout|error|invalid).{0,80}|virtio_blk: probe of "
            r"virtio\d+ failed.{0,40}"
            r"|xen-?(?:blkfront|vbd).{0,60}(?:fail|error|timeout|Waiting).{0,80}|mmc\d+: (?:error -\d+ whilst "
            r"initialising|Card stuck|.{0,40}timeout|"
            r"Timeout waiting for hardware).{0,80}|mmcblk\d\S*: .{0,60}error.{0,80}"
            r"|XENBUS: (?:Timeout|Waiting for devices).{0,80}"
            r"|hv_storvsc \S{1,60}: .{0,40}cmd 0x(?:28|2a|88|8a) .{0,20}status.{0,80})$",
            "a disk gives errors: {what}",
            "the disk, or what the host emulates it from, does not give what is on it: look at the host's own "
            "messages",
            "blk_update_request: I/O error, dev vda, sector 2048 op 0x0:(READ) flags 0x0",
            kernel=True,
            owner=Owner.HOST,
            layer=Layer.REASON,
            fatal=False,
        ),
        # It looks at whatever the kernel tries as root, and says so of each.
        rule(
            Cause.FILESYSTEM_DAMAGED,
            r"(?P<what>F2FS-fs \(\S{1,32}\): (?:Can't find valid|Magic Mismatch).{0,150})$",
            "the kernel finds no usable F2FS: {what}",
            "the partition holds another file system or none, or was written over",
            "F2FS-fs (vda3): Can't find valid F2FS filesystem in 1th superblock",
            kernel=True,
            layer=Layer.NOTE,
        ),
        # open-iscsi usr/iscsiadm.c
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>iscsiadm: (?:Could not (?:log ?in|perform)|cannot make|Cannot connect"
            r"|initiator reported).{1,200})$",
            "a disk of the network (iSCSI) cannot be reached: {what}",
            "iscsid must run in the initrd, its network must be up, and the target must let this initiator in",
            "iscsiadm: cannot make connection to 192.0.2.1: Connection refused",
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>9pnet_virtio: no channels available for device (?P<device>.{1,100})|9pnet: Could not find "
            r"request transport.{0,60}"
            r"|virtio-?fs: tag <.{1,60}> not found|virtiofs: .{1,80}(?:not found|fail).{0,60}|NFS: .{0,80}(?:fail"
            r"|unable|timed out).{0,80}"
            r"|nfs: server \S{1,80} not responding.{0,40}|CIFS: VFS: .{0,120})$",
            "the machine does not offer what is to be mounted: {what}",
            "the host must share it under that name, and the kernel must have the driver",
            "9pnet_virtio: no channels available for device nix-store",
            kernel=True,
        ),
        rule(
            Cause.PARTITION_MISSING,
            r"(?P<what>GPT:.{0,40}(?:[Pp]rimary|[Aa]lternate|backup).{0,60}(?:corrupt|not at the end|is invalid"
            r"|not valid).{0,80}"
            r"|(?:\S{1,20}: )?(?:unknown partition table|partition table (?:beyond EOD|partially beyond EOD)).{0,80}"
            r"|\S{1,20}: p\d+ size \d+ extends beyond EOD.{0,60}|EXT4-fs .{1,60}bad geometry: block count.{1,80})$",
            "the kernel doubts the partition table: {what}",
            DEVICE_HINT,
            "vda: p3 size 8386560 extends beyond EOD, truncated",
            kernel=True,
            layer=Layer.NOTE,
            fatal=False,
        ),
    ),
)
