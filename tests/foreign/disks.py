"""Disks of partitions, made with Debian's tools in a tree of their own, without root and without a device."""

import gzip
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmtests.host.sandbox import run_in
from vmtests.host.tree import make_tree
from vmtests.sizes import MIB

PACKAGES = (
    "base-files", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "sed", "tar",
    "btrfs-progs", "busybox-static", "cpio", "cryptsetup-bin", "dosfstools", "e2fsprogs", "erofs-utils", "f2fs-tools",
    "fdisk", "grub-common", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "grub-pc-bin", "linux-image-cloud-amd64",
    "lz4", "mtools", "python3-pefile", "qemu-utils", "shim-signed", "squashfs-tools", "systemd-boot-efi",
    "systemd-ukify", "xfsprogs", "xorriso", "xz-utils", "zip", "zstd", "bzip2", "util-linux",
)  # fmt: skip

ROOT = "11111111-2222-4333-8444-555555555555"
PARTUUID = "22222222-2222-4333-8444-555555555555"
ESP, XBOOTLDR, LINUX, X86_ROOT, BIOS_GRUB, LUKS, LVM, SWAP, VERITY = (
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172",
    "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "21686148-6449-6e6f-744e-656564454649",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc",
    "e6d6d379-f507-44c2-a23c-238f2a3df928",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
)
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root /etc /tmp /run
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys; /bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
exec /bin/init
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A partition: bytes of MiB, its type, label and UUID, and the file that it is filled with."""

    size: int
    type: str
    content: Path | None = None
    name: str = ""
    uuid: str = ""


@dataclass(slots=True)
class Kitchen:
    """Makes files and disks below `place`; what is the same in many disks is made once."""

    place: Path
    tree: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tree = make_tree(PACKAGES, name="images", title="a Debian tree of image builders' tools")
        self.place.mkdir(parents=True, exist_ok=True)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a tool of the tree."""
        return run_in(self.tree, list(command), stdin=stdin, env={"MTOOLS_SKIP_CHECK": "1"})

    def file(self, path: str) -> bytes:
        """Return a file of the tree."""
        return (self.tree / path).read_bytes()

    @property
    def kernel(self) -> bytes:
        """Debian's kernel for clouds."""
        return next((self.tree / "boot").glob("vmlinuz-*")).read_bytes()

    @property
    def release(self) -> str:
        """Its release."""
        return next((self.tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")

    def archive(self, release: str | None = None) -> bytes:
        """Return an initrd that is a whole system, with a getty on ttyS0, and modules of a release."""
        work = self.place / "initrd"
        shutil.rmtree(work, ignore_errors=True)
        files = {
            "init": INIT,
            "etc/inittab": "ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100\n",
            "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
            "etc/group": "root:x:0:\n",
            "etc/hostname": "appliance\n",
            "etc/initrd-release": "ID=appliance\n",
            f"usr/lib/modules/{release or self.release}/modules.dep": "kernel/fs/ext4/ext4.ko:\n",
            f"usr/lib/modules/{release or self.release}/kernel/fs/ext4/ext4.ko": "\x7fELF",
        }
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        (work / "init").chmod(0o755)
        (work / "bin").mkdir()
        shutil.copy(self.tree / "usr/bin/busybox", work / "bin/busybox")
        out = self.place / "initrd.cpio"
        self.run("sh", "-c", f"cd {work} && find . | LC_ALL=C sort | cpio -o -H newc --quiet > {out}")
        return out.read_bytes()

    def uki(self, line: str, *, version: str = "1", initrd: bytes | None = None, kernel: bytes | None = None) -> bytes:
        """Return a unified kernel image by ukify."""
        parts = {"k": kernel or self.kernel, "i": initrd or gzip.compress(self.archive(), 1)}
        for name, data in parts.items():
            (self.place / name).write_bytes(data)
        release = f"ID=appliance\nVERSION_ID={version}\n"
        self.run(
            "/usr/bin/ukify", "build", f"--linux={self.place / 'k'}", f"--initrd={self.place / 'i'}",
            f"--cmdline={line}", f"--os-release={release}", f"--uname={self.release}",
            f"--stub={'/usr/lib/systemd/boot/efi/linuxx64.efi.stub'}", f"--output={self.place / 'uki'}",
        )  # fmt: skip
        return (self.place / "uki").read_bytes()

    def fat(self, size: int, files: Mapping[str, bytes], *options: str) -> Path:
        """Return a FAT of MiB with files."""
        path = self._blank("fat", size)
        self.run("mkfs.vfat", *(options or ("-F32", "-s1")), "-i", "CAFE0001", str(path))
        directories = sorted({parent for name in files for parent in _parents(name)})
        if directories:
            self.run("mmd", "-i", str(path), *(f"::{directory}" for directory in directories))
        for name, data in files.items():
            (self.place / "file").write_bytes(data)
            self.run("mcopy", "-i", str(path), str(self.place / "file"), f"::{name}")
        return path

    def ext4(self, size: int, files: Mapping[str, bytes]) -> Path:
        """Return an ext4 of MiB with files, whose UUID is ROOT."""
        path = self._blank("ext4", size)
        self.run("mkfs.ext4", "-q", "-U", ROOT, "-L", "system", "-d", str(self.directory(files)), str(path))
        return path

    def directory(self, files: Mapping[str, bytes]) -> Path:
        """Return a directory with files."""
        work = self.place / "root"
        shutil.rmtree(work, ignore_errors=True)
        for name, data in {"/etc/hostname": b"x\n", **files}.items():
            (work / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (work / name.lstrip("/")).write_bytes(data)
        return work

    def system(self, kind: str) -> Path:
        """Return an empty file system of a kind, with ROOT as its UUID where it has one."""
        root, size = str(self.directory({})), {"xfs": 320, "btrfs": 128, "f2fs": 64}.get(kind, 16)
        path = self._blank(kind, size)
        name = str(path)
        commands: dict[str, Sequence[str]] = {
            "xfs": ("mkfs.xfs", "-q", "-m", f"uuid={ROOT}", name),
            "btrfs": ("mkfs.btrfs", "-q", "-U", ROOT, name),
            "f2fs": ("mkfs.f2fs", "-q", "-U", ROOT, name),
            "squashfs": ("mksquashfs", root, name, "-noappend", "-quiet", "-no-progress"),
            "erofs": ("mkfs.erofs", "-U", ROOT, name, root),
            "swap": ("mkswap", "-q", "-U", ROOT, name),
            "ext2": ("mkfs.ext2", "-q", "-U", ROOT, name),
        }
        self.run(*commands[kind])
        return path

    def luks(self) -> Path:
        """Return a LUKS volume."""
        path = self._blank("luks", 32)
        options = ("--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", f"--uuid={ROOT}", "--key-file=-")
        self.run("cryptsetup", "luksFormat", "--type=luks2", *options, str(path), stdin="secret")
        return path

    def verity(self, data: Path) -> tuple[Path, str]:
        """Return the hash tree of a file, and its root hash."""
        path = self._blank("hash", 2)
        said = self.run("veritysetup", "format", str(data), str(path))
        return path, next(line.split()[-1] for line in said.splitlines() if line.startswith("Root hash"))

    def disk(self, name: str, parts: Sequence[Part], *, table: str = "gpt") -> Path:
        """Return a disk with a table and partitions."""
        path = self.place / f"{name}.raw"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate((sum(part.size for part in parts) + 2) * MIB)
        lines, at = [f"label: {table}", "label-id: 0x12345678" if table == "dos" else ""], 1
        for part in parts:
            kind = part.type if table == "gpt" else {ESP: "ef", LINUX: "83", X86_ROOT: "83"}[part.type]
            words = [f"start={at * 2048}", f"size={part.size * 2048}", f"type={kind}"]
            if table == "gpt":
                words += [f"name={part.name}"] * bool(part.name) + [f"uuid={part.uuid}"] * bool(part.uuid)
            lines.append(", ".join(words))
            if part.content is not None:
                self._place(part.content, path, at * MIB)
            at += part.size
        self.run("sfdisk", "-q", str(path), stdin="\n".join(lines) + "\n")
        return path

    def _blank(self, name: str, size: int) -> Path:
        path = self.place / f"{name}.part"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size * MIB)
        return path

    def _place(self, content: Path, disk: Path, at: int) -> None:
        with content.open("rb") as source, disk.open("r+b") as target:
            for number, block in enumerate(iter(lambda: source.read(MIB), b"")):
                if block.strip(b"\0"):
                    os.pwrite(target.fileno(), block, at + number * MIB)


def _parents(name: str) -> list[str]:
    parts = name.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: index + 1]) for index in range(len(parts))]
