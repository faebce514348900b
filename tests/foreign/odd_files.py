"""Files of kinds that nobody had in mind: chains, pieces, archives with odd members, discs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .cases import BREACH, FALLBACK, NOTE, OK, REFUSED, Case, Cases


class OddFiles:
    """Makes them of a disk of `cases`."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.k = cases.k

    def all(self) -> Iterator[Case]:
        """Yield every case."""
        base, place = self.cases.on_esp("oddbase"), self.k.place

        def made(name: str, there: str, command: str, expected: str = OK, words: str = "") -> Case:
            def make() -> Path:
                path = place / name
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                work = place / "work"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                os.link(base, work / "disk.raw")
                self.k.run("sh", "-ec", f"cd {work}; o={path}; {command}")
                return path

            return Case(name=name, there=there, expected=expected, words=words, make=make)

        yield made(
            "data.qcow2",
            "qcow2 with an external data file",
            "qemu-img convert -O qcow2 -o data_file=$o.data,data_file_raw=on disk.raw $o",
        )
        yield made(
            "nodata.qcow2",
            "qcow2 whose external data file is gone",
            "qemu-img convert -O qcow2 -o data_file=$o.data,data_file_raw=on disk.raw $o; rm $o.data",
            REFUSED,
            "nodata.qcow2.data",
        )
        yield made(
            "internal.qcow2",
            "qcow2 with an internal snapshot and large clusters",
            "qemu-img convert -O qcow2 -o cluster_size=1M disk.raw $o; qemu-img snapshot -c one $o",
        )
        yield made(
            "chain.qcow2",
            "qcow2 over vmdk over raw",
            "qemu-img convert -O vmdk disk.raw ../chain.vmdk; qemu-img create -q -f qcow2 -F vmdk -b chain.vmdk $o",
        )
        yield made(
            "loop.qcow2",
            "qcow2 over itself",
            "qemu-img create -q -f qcow2 $o 64M; qemu-img rebase -u -F qcow2 -b loop.qcow2 $o",
            REFUSED,
        )
        yield made(
            "split.vmdk",
            "vmdk in pieces of 2 GB",
            "qemu-img convert -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw $o",
        )
        yield made(
            "flat.vmdk",
            "vmdk, a descriptor and a flat file",
            "qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw $o",
        )
        yield made(
            "lost.vmdk",
            "the same without its flat file",
            "qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw $o; rm ${o%.vmdk}-flat.vmdk",
            REFUSED,
            "lost-flat.vmdk",
        )
        yield made("d.vhdx", "vhdx, dynamic", "qemu-img convert -O vhdx -o subformat=dynamic disk.raw $o")
        yield made("static.vdi", "vdi, static", "qemu-img convert -O vdi -o static=on disk.raw $o")
        yield made(
            "readme.tar.gz",
            "tar.gz of a disk, a text and a checksum",
            "echo x >README; sha256sum disk.raw >disk.raw.sha256; tar -cz -f $o README disk.raw disk.raw.sha256",
        )
        yield made(
            "deep.tar.xz",
            "tar.xz with the disk in a directory",
            "mkdir -p a/b; ln disk.raw a/b/; tar -c a | xz -0 >$o",
        )
        yield made(
            "two.tar.gz",
            "tar.gz with disk.raw and another",
            "ln disk.raw other.raw; tar -cz -f $o disk.raw other.raw",
            NOTE,
        )
        yield made("two.zip", "zip with two disks", "ln disk.raw other.raw; zip -q -1 $o disk.raw other.raw", REFUSED)
        yield made("sparse.tar.gz", "tar.gz, sparse", "tar -S -cz -f $o disk.raw")
        yield made("pax.tar.gz", "tar.gz, pax, sparse", "tar --format=pax -S -cz -f $o disk.raw")
        yield made(
            "link.tar.gz",
            "tar.gz whose disk is a symlink to elsewhere",
            "ln -s /etc/passwd gone.raw; tar -cz -f $o gone.raw",
            REFUSED,
        )
        yield made(
            "a.ova",
            "ova: an ovf and a stream-optimised vmdk",
            "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw d.vmdk; echo '<x/>' >d.ovf; "
            "tar -c -f $o d.ovf d.vmdk",
        )
        yield made(
            "a.box",
            "Vagrant's box",
            "qemu-img convert -O qcow2 disk.raw box.img; echo '{}' >metadata.json; "
            "tar -cz -f $o metadata.json box.img",
        )
        yield made(
            "parts.raw.gz",
            "gzip of two members",
            "head -c 50000000 disk.raw | gzip -1 >$o; tail -c +50000001 disk.raw | gzip -1 >>$o",
        )
        yield made(
            "frames.raw.zst",
            "zstd of two frames",
            "head -c 50000000 disk.raw | zstd -q -1 >$o; tail -c +50000001 disk.raw | zstd -q -1 >>$o",
        )
        yield made("trailing.raw.gz", "gzip with zeros behind it", "gzip -1c disk.raw >$o; head -c 512 /dev/zero >>$o")
        yield made("a.raw.lz4", "lz4", "lz4 -q -1 disk.raw $o", REFUSED, "lz4")
        yield made("a.qcow", "qcow, version 1", "qemu-img convert -O qcow disk.raw $o")
        yield made("a.qed", "QED", "qemu-img convert -O qed disk.raw $o")
        yield made("a.hdd", "Parallels", "qemu-img convert -O parallels disk.raw $o")
        yield made(
            "cut.vdi", "vdi, cut", "qemu-img convert -O vdi disk.raw $o; truncate -s -1M $o", REFUSED, "truncated"
        )
        yield made(
            "short.vmdk",
            "vmdk whose flat file was cut",
            "qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw $o; truncate -s 9M ${o%.vmdk}-flat.vmdk",
            REFUSED,
            "short-flat.vmdk",
        )
        yield made("pipe.zip", "zip of a pipe", "zip -q -1 $o - <disk.raw")
        yield made("nested.zip", "zip of a tar.gz", "tar -cz -f d.tar.gz disk.raw; zip -q -0 $o d.tar.gz")
        yield made("nested.tar", "tar of a zip", "zip -q -1 d.zip disk.raw; tar -c -f $o d.zip")
        yield made(
            "wrong.raw", "a qcow2 called raw", "qemu-img convert -O qcow2 disk.raw x; mv x $o", REFUSED, "qcow2"
        )
        yield made("a.raw.gz.001", "one part of a gzip", "gzip -1c disk.raw | head -c 3M >$o", REFUSED, "split")
        yield made("vmlinuz", "a kernel", f"cp {self.k.tree}/boot/vmlinuz-* $o", REFUSED, "kernel")
        yield made("oci.tar", "a container", "echo '{}' >oci-layout; tar -c -f $o oci-layout", REFUSED, "container")
        yield made("bare.iso", "a CD-ROM for UEFI, without a table", self._disc_command(), OK, "")
        yield made("data.iso", "a CD-ROM of files", "mkdir f; echo x >f/x; xorrisofs -quiet -o $o f", BREACH, "CD-ROM")

    def _disc_command(self) -> str:
        fat = self.k.fat(40, {FALLBACK: self.k.uki("console=ttyS0")}).rename(self.k.place / "efi.img")
        return f"mkdir f; cp {fat} f/efi.img; xorrisofs -quiet -o $o -e efi.img -no-emul-boot f"
