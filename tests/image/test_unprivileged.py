"""An image is the same where bubblewrap makes no sandbox."""

import os
import re
from pathlib import Path

from vmtests.host.tools import Toolbox
from vmtests.image.unprivileged import give_to_root
from vmtests.sizes import MIB


def test_every_file_becomes_roots(tmp_path: Path, toolbox: Toolbox) -> None:
    """Files, directories, links and the root directory of a file system inside a disk are given to root."""
    content, disk = tmp_path / "content", tmp_path / "disk"
    (content / 'a "strange" name').mkdir(parents=True)
    (content / 'a "strange" name/file').write_text("x")
    (content / "link").symlink_to("nowhere")
    if os.geteuid() == 0:  # an ordinary user's are not root's as they are
        for path in (content, *content.rglob("*")):
            os.chown(path, 70000, 12345, follow_symlinks=False)
    disk.touch()
    os.truncate(disk, 17 * MIB)
    toolbox.run("mkfs.ext4", "-q", "-d", content, "-E", f"offset={MIB}", disk, "16M")
    give_to_root(disk, MIB, toolbox)
    script = 'stat <2>\nstat "/a ""strange"" name"\nstat "/a ""strange"" name/file"\nstat /link\n'
    shown = toolbox.run("debugfs", "-f", "-", f"{disk}?offset={MIB}", stdin=script)
    owners = re.findall(r"User: +(\d+) +Group: +(\d+)", shown)
    assert owners == [("0", "0")] * 4
