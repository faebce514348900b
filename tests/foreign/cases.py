"""The disks and files that are tried, and what has to be said of each."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vmtests.sizes import MIB

from .disks import ESP, LINUX, LUKS, LVM, PARTUUID, ROOT, SWAP, VERITY, X86_ROOT, XBOOTLDR, Kitchen, Part

LINE = f"root=UUID={ROOT} console=ttyS0"
FALLBACK = "/EFI/BOOT/BOOTX64.EFI"
MENU = f"""set default=0
menuentry 'Debian' {{
  search --no-floppy --fs-uuid --set=root {ROOT}
  linux /boot/vmlinuz {LINE} ro quiet
  initrd /boot/initrd
}}
"""
SEARCH = f"search.fs_uuid {ROOT} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"

NO_KERNEL = b"MZ" + bytes(4096)

OK, NOTE, BREACH, REFUSED = "ok", "note", "breach", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An image: what is there, how it comes out, words that are said of it, and whether it gets to a login."""

    name: str
    there: str
    expected: str
    words: str = ""
    boots: bool | None = None
    make: Callable[[], Path]


def case(
    name: str,
    there: str,
    make: Callable[[str], Path],
    expected: str = OK,
    words: str = "",
    boots: bool | None = None,
) -> Case:
    """Return a case whose maker is told its name."""
    return Case(name=name, there=there, expected=expected, words=words, boots=boots, make=lambda: make(name))


class Cases:
    """Makes all cases below a directory."""

    def __init__(self, kitchen: Kitchen) -> None:
        self.k = kitchen
        self.initrd = gzip.compress(kitchen.archive(), 1)
        self.sd = kitchen.file("usr/lib/systemd/boot/efi/systemd-bootx64.efi")
        self.grub = kitchen.file("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi")
        self.signed = kitchen.file("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")
        self.shim = kitchen.file("usr/lib/shim/shimx64.efi.signed")
        self.fallback = kitchen.file("usr/lib/shim/fbx64.efi.signed")
        self.base = {
            FALLBACK: self.sd,
            "/loader/entries/debian.conf": self.entry(),
            "/vmlinuz": kitchen.kernel,
            "/initrd": self.initrd,
        }
        self.boot = {
            "/boot/grub/grub.cfg": MENU.encode(),
            "/boot/vmlinuz": kitchen.kernel,
            "/boot/initrd": self.initrd,
        }

    def entry(self, line: str = LINE, kernel: str = "linux /vmlinuz", initrd: str = "initrd /initrd\n") -> bytes:
        """Return a type #1 entry."""
        return f"title Debian\n{kernel}\n{initrd}options {line}\n".encode()

    def on_esp(
        self,
        name: str,
        changed: Mapping[str, bytes | None] | None = None,
        *,
        root: Path | None = None,
        root_type: str = X86_ROOT,
        table: str = "gpt",
        fat: tuple[str, ...] = (),
        size: int = 80,
        more: tuple[Part, ...] = (),
    ) -> Path:
        """Return a disk whose ESP has `base` with changes, and a root partition."""
        files = {path: data for path, data in {**self.base, **(changed or {})}.items() if data is not None}
        esp = self.k.fat(size, files, *fat)
        content = root or self.k.ext4(16, {})
        length = -(-content.stat().st_size // MIB)
        parts = [
            Part(size=size, type=ESP, content=esp, name="ESP"),
            Part(size=length, type=root_type, content=content, name="root", uuid=PARTUUID),
            *more,
        ]
        return self.k.disk(name, parts, table=table)

    def on_root(self, name: str, esp: dict[str, bytes], changed: Mapping[str, bytes | None] | None = None) -> Path:
        """Return a disk whose root has GRUB's menu, kernel and initrd."""
        files = {path: data for path, data in {**self.boot, **(changed or {})}.items() if data is not None}
        parts = [
            Part(size=40, type=ESP, content=self.k.fat(40, esp), name="ESP"),
            Part(size=64, type=LINUX, content=self.k.ext4(64, files)),
        ]
        return self.k.disk(name, parts)

    def all(self) -> Iterator[Case]:
        """Yield every case."""
        yield from self.good()
        yield from self.bad()

    def good(self) -> Iterator[Case]:
        """Yield what boots: no breach is said of it."""

        yield case("entry", "systemd-boot, type #1 entry, ext4", self.on_esp, boots=True)
        yield case("mbr", "the same with an MBR", lambda n: self.on_esp(n, table="dos"), boots=True)
        for kind in ("xfs", "btrfs", "f2fs", "squashfs", "erofs", "ext2"):
            yield case(f"root-{kind}", f"root is {kind}", partial(self._root, kind), words=kind)
        yield case(
            "root-luks",
            "root is in LUKS",
            lambda n: self.on_esp(
                n,
                {"/loader/entries/debian.conf": self.entry("root=/dev/mapper/root console=ttyS0")},
                root=self.k.luks(),
                root_type=LUKS,
            ),
            words="crypto_LUKS",
        )
        yield case("root-lvm", "root is in LVM", self._lvm, words="LVM2_member")
        yield case(
            "root-verity", "erofs with dm-verity, roothash= in a unified kernel", self._verity, words="DM_verity"
        )
        yield case(
            "swap",
            "a swap partition beside",
            lambda n: self.on_esp(n, more=(Part(size=16, type=SWAP, content=self.k.system("swap"), name="swap"),)),
            words="swap",
        )
        for key, value in (
            ("partuuid", f"PARTUUID={PARTUUID}"),
            ("partlabel", "PARTLABEL=root"),
            ("label", "LABEL=system"),
            ("path", "/dev/disk/by-partlabel/root"),
        ):
            line = {"/loader/entries/debian.conf": self.entry(f"root={value} console=ttyS0")}
            yield case(f"by-{key}", f"root={value}", partial(self.on_esp, changed=line))
        yield case("xbootldr", "entry, kernel and initrd on XBOOTLDR", self._xbootldr, boots=True)
        yield case("uki", "unified kernel image in /EFI/Linux", lambda n: self._ukis(n, {"one.efi": "1"}), boots=True)
        yield case(
            "uki-alone",
            "the unified kernel image is the fallback loader",
            lambda n: self.on_esp(n, {**self._none(), FALLBACK: self.k.uki(LINE)}),
            boots=True,
        )
        yield case(
            "uki-two",
            "two of them, the newer one starts",
            lambda n: self._ukis(n, {"a-9.efi": "9", "a-10.efi": "10"}),
            words="a-10.efi",
        )
        yield case(
            "uki-efi-key",
            "a type #1 entry with `efi` for a unified kernel",
            lambda n: self.on_esp(
                n,
                {
                    **self._none(),
                    FALLBACK: self.sd,
                    "/k.efi": self.k.uki(LINE),
                    "/loader/entries/a.conf": b"title a\nefi /k.efi\n",
                },
            ),
            boots=True,
        )
        yield case(
            "counter",
            "an entry with tries left",
            lambda n: self.on_esp(
                n, {"/loader/entries/debian.conf": None, "/loader/entries/debian+3.conf": self.entry()}
            ),
            boots=True,
        )
        yield case(
            "default",
            "loader.conf chooses the older entry, whose newer sister is broken",
            lambda n: self.on_esp(
                n,
                {
                    "/loader/loader.conf": b"default old*\n",
                    "/loader/entries/old.conf": self.entry(),
                    "/loader/entries/debian.conf": None,
                    "/loader/entries/zew.conf": self.entry(kernel="linux /initrd"),
                },
            ),
            words="old.conf",
        )
        yield case(
            "other-name",
            "the only entry has another name",
            lambda n: self.on_esp(
                n, {"/loader/entries/debian.conf": None, "/loader/entries/nixos-generation-7.conf": self.entry()}
            ),
        )
        yield case(
            "grub",
            "GRUB, menu and kernel on ext4, `quiet`",
            lambda n: self.on_root(n, {FALLBACK: self.grub, "/EFI/debian/grub.cfg": SEARCH.encode()}),
            boots=True,
        )
        yield case(
            "grub-esp",
            "GRUB, menu on the ESP",
            lambda n: self.on_esp(
                n,
                {
                    **self._none(),
                    FALLBACK: self.grub,
                    "/vmlinuz": self.k.kernel,
                    "/initrd": self.initrd,
                    "/EFI/debian/grub.cfg": MENU.replace("/boot/", "/")
                    .replace(f"search --no-floppy --fs-uuid --set=root {ROOT}", "search --set=root --file /vmlinuz")
                    .encode(),
                },
            ),
        )
        yield case(
            "shim",
            "signed shim, signed GRUB",
            lambda n: self.on_root(
                n, {FALLBACK: self.shim, "/EFI/BOOT/grubx64.efi": self.signed, "/EFI/debian/grub.cfg": SEARCH.encode()}
            ),
            words="shim",
            boots=True,
        )
        yield case(
            "shim-csv",
            "shim's fallback, GRUB in the distribution's directory",
            lambda n: self.on_root(
                n,
                {
                    FALLBACK: self.shim,
                    "/EFI/BOOT/fbx64.efi": self.fallback,
                    "/EFI/debian/shimx64.efi": self.shim,
                    "/EFI/debian/grubx64.efi": self.signed,
                    "/EFI/debian/grub.cfg": SEARCH.encode(),
                    "/EFI/debian/BOOTX64.CSV": "shimx64.efi,debian,,x\n".encode("utf-16"),
                },
            ),
            words="GRUB",
        )
        for size in ("1024", "2048", "4096"):
            boots = True if size == "4096" else None
            there = f"FAT with sectors of {size} bytes"
            yield case(f"fat-{size}", there, partial(self.on_esp, fat=("-S", size)), boots=boots)
        yield case("fat16", "an ESP with FAT16", lambda n: self.on_esp(n, fat=("-F16",)))
        yield case(
            "no-console",
            "no console=",
            lambda n: self.on_esp(n, {"/loader/entries/debian.conf": self.entry(f"root=UUID={ROOT}")}),
            NOTE,
            "no console=ttyS0",
        )
        yield case(
            "microcode",
            "two initrds, the first one microcode",
            lambda n: self.on_esp(
                n,
                {
                    "/ucode": self.k.archive(),
                    "/loader/entries/debian.conf": self.entry(initrd="initrd /ucode\ninitrd /initrd\n"),
                },
            ),
        )
        packers: dict[str, Callable[[bytes], bytes]] = {
            "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
            "bz2": lambda data: bz2.compress(data, 1),
            "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
            "zst": self._zstd,
            "plain": bytes,
        }
        for name, pack in packers.items():
            yield case(f"initrd-{name}", f"initrd: {name}", partial(self._packed_initrd, pack))
        yield case("bios", "GRUB for BIOS only", self._bios, NOTE, "for BIOS only")
        yield case("bios-lost", "the same, which goes on nowhere", self._bios_lost, BREACH, "goes on at sector")
        yield case("iso", "grub-mkrescue's ISO, for both", self._iso)

    def bad(self) -> Iterator[Case]:
        """Yield what does not boot."""

        def case(name: str, there: str, words: str, make: Callable[[str], Path], expected: str = BREACH) -> Case:
            return Case(name=name, there=there, expected=expected, words=words, make=lambda: make(name))

        conf = "/loader/entries/debian.conf"
        changes: list[tuple[str, str, str, dict[str, bytes | None]]] = [
            ("no-loader", "no boot loader", f"{FALLBACK} is not on the ESP", {FALLBACK: None}),
            ("bad-loader", "the boot loader is text", "is no EFI program", {FALLBACK: b"#!/bin/sh\n"}),
            ("no-kernel", "the kernel is missing", "kernel /vmlinuz", {"/vmlinuz": None}),
            ("bad-kernel", "the kernel is text", "/vmlinuz", {"/vmlinuz": b"text" * 1000}),
            ("no-initrd", "the initrd is missing", "initrd /initrd", {"/initrd": None}),
            ("bad-initrd", "the initrd is nothing", "in no format", {"/initrd": bytes(4096)}),
            ("no-entry", "no entry", "nothing to start", {conf: None}),
            ("other-root", "root= names another disk", "leads nowhere", {conf: self.entry(f"root=UUID={PARTUUID}")}),
            ("no-initrd-line", "root=UUID= without an initrd", "needs an initrd", {conf: self.entry(initrd="")}),
            (
                "other-initrd",
                "the initrd of another kernel",
                "6.1.0-other",
                {"/initrd": gzip.compress(self.k.archive("6.1.0-other"), 1)},
            ),
            ("cut-initrd", "the initrd was cut", "initrd", {"/initrd": self.initrd[: len(self.initrd) // 2]}),
        ]
        for name, there, words, changed in changes:
            yield case(name, there, words, partial(self.on_esp, changed=changed))
        yield case(
            "uki-broken",
            "of two unified kernels the one that starts is broken",
            "",
            lambda n: self._ukis(n, {"a-9.efi": "9", "a-10.efi": "10"}, broken="10"),
        )
        yield case(
            "mbr-start",
            "the protective MBR does not begin in sector 1",
            "ignores the GPT",
            lambda n: self._poke(self.on_esp(n), 454, b"\2"),
        )
        yield case("no-gpt", "both copies of the GPT are gone", "GPT", self._no_gpt)
        yield case("cut-disk", "the disk's second half is missing", "is truncated", self._cut, REFUSED)
        yield case(
            "few-clusters", "FAT32 with too few clusters", "clusters", lambda n: self.on_esp(n, fat=("-F32", "-s8"))
        )
        yield case(
            "no-esp",
            "no ESP, nothing for BIOS",
            "no ESP",
            lambda n: self.k.disk(n, [Part(size=16, type=X86_ROOT, content=self.k.ext4(16, {}))]),
        )
        yield case("no-table", "a file system and no table", "without a partition table", self._bare, REFUSED)
        yield case(
            "grub-lost",
            "GRUB looks for another file system",
            "not on the disk",
            lambda n: self.on_root(
                n,
                {FALLBACK: self.grub, "/EFI/debian/grub.cfg": SEARCH.replace(ROOT, PARTUUID).encode()},
                {"/boot/grub/grub.cfg": None},
            ),
        )
        yield case(
            "grub-no-kernel",
            "GRUB's kernel is missing",
            "kernel /boot/vmlinuz",
            lambda n: self.on_root(
                n, {FALLBACK: self.grub, "/EFI/debian/grub.cfg": SEARCH.encode()}, {"/boot/vmlinuz": None}
            ),
        )
        yield case(
            "shim-alone",
            "shim without a second loader",
            "shim finds no",
            lambda n: self.on_root(n, {FALLBACK: self.shim}),
        )
        yield case(
            "erofs-broken",
            "an erofs whose superblock is damaged",
            "",
            lambda n: self._poke(
                self.on_esp(n, root=self.k.system("erofs")), 81 * MIB + 1024 + 0x24, b"\xff\xff\xff\xff"
            ),
        )

    # How some of them are made.

    def _none(self) -> dict[str, bytes | None]:
        return dict.fromkeys(self.base)

    def _zstd(self, data: bytes) -> bytes:
        (self.k.place / "plain").write_bytes(data)
        self.k.run("zstd", "-q", "-f", "-1", str(self.k.place / "plain"), "-o", str(self.k.place / "packed"))
        return (self.k.place / "packed").read_bytes()

    def _ukis(self, name: str, images: dict[str, str], broken: str = "") -> Path:
        files = {
            f"/EFI/Linux/{file}": self.k.uki(LINE, version=version, kernel=NO_KERNEL if version == broken else None)
            for file, version in images.items()
        }
        return self.on_esp(name, {**self._none(), FALLBACK: self.sd, **files}, size=120)

    def _xbootldr(self, name: str) -> Path:
        more = {path: data for path, data in self.base.items() if path != FALLBACK}
        root = self.k.ext4(16, {})
        esp = self.k.fat(40, {FALLBACK: self.sd}).rename(self.k.place / "esp.part")
        parts = [
            Part(size=40, type=ESP, content=esp, name="ESP"),
            Part(size=80, type=XBOOTLDR, content=self.k.fat(80, more), name="boot"),
            Part(size=16, type=X86_ROOT, content=root, name="root"),
        ]
        return self.k.disk(name, parts)

    def _lvm(self, name: str) -> Path:
        # pvcreate wants a block device: the label of a physical volume, as lib/format_text/layout.h has it.
        volume = self.k.place / "lvm.part"
        label = b"LABELONE" + (1).to_bytes(8, "little") + bytes(4) + (32).to_bytes(4, "little") + b"LVM2 001"
        data = bytearray(16 * MIB)
        data[512 : 512 + len(label)] = label
        data[544:576] = b"abcdefghijklmnopqrstuvwxyz012345"
        volume.write_bytes(data)
        line = self.entry("root=/dev/vg0/root console=ttyS0")
        return self.on_esp(name, {"/loader/entries/debian.conf": line}, root=volume, root_type=LVM)

    def _verity(self, name: str) -> Path:
        data = self.k.system("erofs")
        hashes, root = self.k.verity(data)
        first, second = (
            f"{half[:8]}-{half[8:12]}-{half[12:16]}-{half[16:20]}-{half[20:]}" for half in (root[:32], root[32:])
        )
        esp = self.k.fat(80, {FALLBACK: self.k.uki(f"roothash={root} console=ttyS0")})
        size = -(-data.stat().st_size // MIB)
        parts = [
            Part(size=80, type=ESP, content=esp, name="ESP"),
            Part(size=size, type=X86_ROOT, content=data, name="root", uuid=first),
            Part(size=2, type=VERITY, content=hashes, name="root-verity", uuid=second),
        ]
        return self.k.disk(name, parts)

    def _bios(self, name: str) -> Path:
        path = self.k.disk(name, [Part(size=64, type=LINUX, content=self.k.ext4(64, {**self.boot}))], table="dos")
        self._poke(path, 512, self.k.file("usr/lib/grub/i386-pc/diskboot.img"))
        return self._poke(path, 0, self.k.file("usr/lib/grub/i386-pc/boot.img")[:440])

    def _bios_lost(self, name: str) -> Path:
        return self._poke(self._bios(name), 0x5C, (1 << 40).to_bytes(8, "little"))

    def _iso(self, name: str) -> Path:
        menu = MENU.replace(f"search --no-floppy --fs-uuid --set=root {ROOT}", "")
        tree = self.k.directory({**self.boot, "/boot/grub/grub.cfg": menu.encode()})
        path = self.k.place / f"{name}.iso"
        self.k.run("grub-mkrescue", "-d", "/usr/lib/grub/x86_64-efi", "-o", str(path), str(tree))
        return path

    def _poke(self, path: Path, at: int, data: bytes) -> Path:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)
        return path

    def _no_gpt(self, name: str) -> Path:
        path = self.on_esp(name)
        self._poke(path, 512, bytes(33 * 512))
        return self._poke(path, path.stat().st_size - 33 * 512, bytes(33 * 512))

    def _cut(self, name: str) -> Path:
        path = self.on_esp(name)
        os.truncate(path, path.stat().st_size // 2)
        return path

    def _bare(self, name: str) -> Path:
        return self.k.ext4(16, {}).rename(self.k.place / f"{name}.raw")

    def _root(self, kind: str, name: str) -> Path:
        # A squashfs has no UUID.
        line = self.entry("root=/dev/sda2 console=ttyS0" if kind == "squashfs" else LINE)
        return self.on_esp(name, {"/loader/entries/debian.conf": line}, root=self.k.system(kind))

    def _packed_initrd(self, pack: Callable[[bytes], bytes], name: str) -> Path:
        return self.on_esp(name, {"/initrd": pack(self.k.archive())})
