"""Files of root's, made without being root."""

import re
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.tools import Toolbox

_COUNT = re.compile(r"^Inode count: +(\d+)$", re.MULTILINE)
_USED = re.compile(r"^Inode (\d+) is marked in use$", re.MULTILINE)


def give_to_root(disk: Path, offset: int, toolbox: Toolbox) -> None:
    """Make every file of the ext4 at `offset` of `disk`, which mkfs.ext4 has filled with the caller's, root's."""
    place = f"{disk}?offset={offset}"

    def debugfs(*commands: str) -> str:
        return toolbox.run("debugfs", "-w", "-f", "-", place, stdin="".join(f"{command}\n" for command in commands))

    if (count := _COUNT.search(debugfs("show_super_stats -h"))) is None:
        raise HostError(f"debugfs does not say how many inodes {place} has")
    # Linux fs/ext4/ext4.h: the root directory is 2, and others begin at 11.
    numbers = [2, *range(11, int(count[1]) + 1)]
    used = _USED.findall(debugfs(*(f"testi <{number}>" for number in numbers)))
    debugfs(*(f"set_inode_field <{number}> {field} 0" for number in used for field in ("uid", "gid")))
