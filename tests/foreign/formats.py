"""A good disk in every format in which people hand disks out, and files that are none."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .cases import OK, REFUSED, Case, Cases
from .disks import ESP, X86_ROOT, Part


class Formats:
    """Makes them of a disk of `cases`."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.k = cases.k

    def all(self) -> Iterator[Case]:
        """Yield the good disk in every format, and files that are none."""
        base = self.cases.on_esp("base")
        place, k = self.k.place, self.k

        def case(name: str, there: str, make: Callable[[Path], object], expected: str = OK, words: str = "") -> Case:
            def made() -> Path:
                path = place / name
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                make(path)
                return path

            return Case(name=name, there=there, expected=expected, words=words, make=made)

        def converted(*options: str) -> Callable[[Path], object]:
            return lambda path: k.run("qemu-img", "convert", *options, str(base), str(path))

        def packed(command: str) -> Callable[[Path], object]:
            return lambda path: k.run("sh", "-c", command.format(base=base, out=path, dir=base.parent))

        yield case("f.qcow2", "qcow2", converted("-O", "qcow2"))
        yield case("c.qcow2", "qcow2, compressed", converted("-c", "-O", "qcow2"))
        yield case("z.qcow2", "qcow2, zstd", converted("-c", "-O", "qcow2", "-o", "compression_type=zstd"))
        yield case("s.vmdk", "vmdk, stream", converted("-O", "vmdk", "-o", "subformat=streamOptimized"))
        yield case("f.vmdk", "vmdk, sparse", converted("-O", "vmdk"))
        yield case("f.vhd", "vhd, fixed", converted("-O", "vpc", "-o", "subformat=fixed,force_size"))
        yield case("d.vhd", "vhd, dynamic", converted("-O", "vpc", "-o", "force_size"))
        yield case("f.vhdx", "vhdx", converted("-O", "vhdx"))
        yield case("f.vdi", "vdi", converted("-O", "vdi"))
        yield case("f.raw.gz", "gzip", packed("gzip -1c {base} >{out}"))
        yield case("f.raw.xz", "xz", packed("xz -0 -T2 -c {base} >{out}"))
        yield case("f.raw.zst", "zstd", packed("zstd -q -1 -c {base} >{out}"))
        yield case("f.raw.bz2", "bzip2", packed("bzip2 -1 -c {base} >{out}"))
        yield case("f.zip", "zip", packed("cd {dir} && zip -q -1 {out} base.raw"))
        yield case("f.tar.gz", "tar.gz", packed("tar -C {dir} -cz -f {out} base.raw"))
        yield case("f.tar.zst", "tar.zst", packed("tar -C {dir} -c base.raw | zstd -q -1 >{out}"))
        yield case("link.raw", "a symlink", lambda path: path.symlink_to(base))
        yield case("bare", "no extension", lambda path: shutil.copy(base, path))
        yield case("directory", "a directory with one image", partial(_linked, base, "d.raw"))
        yield case(
            "over.qcow2",
            "qcow2 over another",
            lambda path: k.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", str(path)),
        )
        yield case(
            "lost.qcow2",
            "qcow2 whose backing file is missing",
            lambda path: k.run(
                "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "gone.raw", str(path), "64M"
            ),
            REFUSED,
            "gone.raw",
        )
        yield case("locked.qcow2", "qcow2, encrypted", self._locked, REFUSED, "encrypted")
        yield case("cut.qcow2", "qcow2, cut", self._cut_of(converted("-c", "-O", "qcow2")), REFUSED)
        yield case("cut.raw.gz", "gzip, cut", self._cut_of(packed("gzip -1c {base} >{out}")), REFUSED)
        yield case("cut.raw.zst", "zstd, cut", self._cut_of(packed("zstd -q -1 -c {base} >{out}")), REFUSED)
        yield case("empty.raw", "an empty file", lambda path: path.write_bytes(b""), REFUSED)
        yield case("text.raw", "text", lambda path: path.write_text("no disk\n" * 9999), REFUSED, "is not a disk")
        yield case("two", "a directory with two images", partial(_linked, base, "a.raw", "b.raw"), REFUSED)
        yield case("zeros.raw.xz", "3 GiB, mostly of zeros, in xz", self._zeros("xz -0 -T2 -c {base} >{out}"))
        yield case("zeros.raw.zst", "3 GiB, mostly of zeros, in zstd", self._zeros("zstd -q -1 -c {base} >{out}"))
        yield case("zeros.raw.gz", "3 GiB, mostly of zeros, in gzip", self._zeros("gzip -1c {base} >{out}"))

    def _locked(self, path: Path) -> None:
        secret = self.k.place / "secret"
        secret.write_text("secret")
        options = ("--object", f"secret,id=s,file={secret}", "-f", "qcow2")
        luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
        self.k.run("qemu-img", "create", "-q", *options, "-o", luks, str(path), "16M")

    def _cut_of(self, make: Callable[[Path], object]) -> Callable[[Path], object]:
        def cut(path: Path) -> None:
            make(path)
            os.truncate(path, path.stat().st_size // 2)

        return cut

    def _zeros(self, command: str) -> Callable[[Path], object]:
        def make(path: Path) -> None:
            large = self.k.place / "large.raw"
            if not large.exists():
                parts = [
                    Part(size=80, type=ESP, content=self.k.fat(80, self.cases.base), name="ESP"),
                    Part(size=2990, type=X86_ROOT, content=self.k.ext4(2990, {}), name="root"),
                ]
                self.k.disk("large", parts)
            self.k.run("sh", "-c", command.format(base=large, out=path))

        return make


def _linked(base: Path, first: str, *more: object) -> None:
    """Make a directory, the last word, with links to a disk."""
    *names, path = (first, *more)
    directory = Path(str(path))
    directory.mkdir()
    for name in names:
        os.link(base, directory / str(name))
