"""Disks of kinds that nobody had in mind: odd tables, FATs, entries, unified kernels and roots."""

import os
import shutil
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vmtests.sizes import MIB

from .cases import BREACH, FALLBACK, LINE, NOTE, Case, Cases, case
from .disks import BIOS_GRUB, ESP, LINUX, ROOT, SWAP, X86_ROOT, XBOOTLDR, Part

CONF = "/loader/entries/debian.conf"


class Odd:
    """Makes them with what `cases` has."""

    def __init__(self, cases: Cases) -> None:
        self.c = cases
        self.k = cases.k

    def all(self) -> Iterator[Case]:
        """Yield every case."""
        yield from self._tables()
        yield from self._loaders()
        yield from self._roots()

    def _tables(self) -> Iterator[Case]:
        esp, disk = self.c.on_esp, self.k.disk
        yield case("hybrid-mbr", "a hybrid MBR: EE, and the ESP again as 0c", self._hybrid, boots=True)
        yield case("sectors-4k", "a GPT with sectors of 4096 bytes", self._sectors_4k, boots=True)
        yield case(
            "gpt-holes",
            "entries 5 and 100 of the GPT, in the other order of their places",
            self._holes,
            boots=True,
        )
        yield case("grown", "a disk that was grown: the backup GPT is in its middle", self._grown, NOTE, boots=True)
        yield case(
            "logical",
            "an MBR with root on a logical partition",
            self._logical,
        )
        yield case("superfloppy", "a FAT without a table", self._superfloppy, boots=True)
        yield case(
            "esp-unmarked",
            "the boot loader is on a FAT of type basic data",
            lambda n: disk(
                n,
                [
                    Part(size=80, type="ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", content=self.k.fat(80, self.c.base)),
                    Part(size=16, type=X86_ROOT, content=self.k.ext4(16, {})),
                ],
            ),
            NOTE,
            boots=True,
        )
        yield case(
            "swap-first",
            "swap and a BIOS partition before the ESP",
            lambda n: disk(
                n,
                [
                    Part(
                        size=16, type=SWAP, content=self.k.system("swap").rename(self.k.place / "swap0"), name="swap"
                    ),
                    Part(size=1, type=BIOS_GRUB, name="bios"),
                    Part(size=80, type=ESP, content=self.k.fat(80, self.c.base), name="ESP"),
                    Part(size=16, type=X86_ROOT, content=self.k.ext4(16, {}), name="root"),
                ],
            ),
        )
        yield case(
            "ab-slots",
            "two roots, the second one _empty",
            lambda n: esp(n, more=(Part(size=16, type=X86_ROOT, name="_empty"),)),
        )
        yield case(
            "twins",
            "root=LABEL= and two file systems of that label",
            lambda n: esp(
                n,
                {CONF: self.c.entry("root=LABEL=system console=ttyS0")},
                more=(Part(size=16, type=LINUX, content=self._copy_of_root(), name="other"),),
            ),
            NOTE,
            "fits 2",
        )

    def _loaders(self) -> Iterator[Case]:
        esp = self.c.on_esp
        none = dict.fromkeys(self.c.base)
        for name, options in (
            ("fat12", ("-F12", "-s32")),
            ("fat16-large", ("-F16", "-s32")),
            ("fat32-one", ("-F32", "-s1", "-R", "64")),
        ):
            size = 40 if name == "fat12" else 80
            files = {**none, FALLBACK: self.k.uki(LINE)} if name == "fat12" else {}
            yield case(
                name,
                f"an ESP made with mkfs.vfat {' '.join(options)}",
                partial(esp, changed=files, fat=options, size=size),
                boots=True,
            )
        yield case(
            "case",
            "names in other cases: efi/boot/bootx64.efi",
            lambda n: esp(n, {FALLBACK: None, "/efi/boot/bootx64.efi": self.c.sd}),
            boots=True,
        )
        yield case(
            "crlf",
            "an entry with CRLF, tabs, a comment and a BOM",
            lambda n: esp(
                n,
                {
                    CONF: b"\xef\xbb\xbf# made elsewhere\r\n"
                    + self.c.entry().replace(b"\n", b"\r\n").replace(b" ", b"\t", 1)
                },
            ),
        )
        yield case(
            "counters",
            "a newer entry that has no tries left, and an older one with some",
            lambda n: esp(
                n,
                {
                    CONF: None,
                    "/loader/entries/b+0-3.conf": self.c.entry(kernel="version 9\nlinux /initrd"),
                    "/loader/entries/a+3.conf": self.c.entry(kernel="version 1\nlinux /vmlinuz"),
                },
            ),
            words="a+3.conf",
            boots=True,
        )
        yield case(
            "newest-broken",
            "of two entries the newer one has no kernel that is one",
            lambda n: esp(
                n,
                {
                    "/loader/entries/zz.conf": self.c.entry(kernel="version 9\nlinux /initrd"),
                    CONF: self.c.entry(kernel="version 1\nlinux /vmlinuz"),
                },
            ),
            BREACH,
            "/initrd",
            boots=False,
        )
        yield case(
            "uki-no-initrd",
            "a unified kernel without an initrd, root=UUID=",
            lambda n: esp(n, {**none, FALLBACK: self._uki_without(".initrd")}),
            BREACH,
            "needs an initrd",
        )
        yield case(
            "uki-no-osrel",
            "a unified kernel in /EFI/Linux without .osrel",
            lambda n: esp(n, {**none, FALLBACK: self.c.sd, "/EFI/Linux/a.efi": self._uki_without(".osrel")}),
            BREACH,
            ".osrel",
            boots=False,
        )
        yield case(
            "uki-no-cmdline",
            "a unified kernel without a command line",
            lambda n: esp(n, {**none, FALLBACK: self._uki_without(".cmdline")}),
            NOTE,
            "no console=ttyS0",
        )
        yield case("uki-xbootldr", "a unified kernel on XBOOTLDR", self._uki_xbootldr, boots=True)
        yield case("uki-profiles", "a unified kernel with two profiles", self._uki_profiles, boots=True)
        yield case(
            "other-arch",
            "a boot loader for ARM only",
            lambda n: esp(n, {FALLBACK: None, "/EFI/BOOT/BOOTAA64.EFI": self.c.sd}),
            BREACH,
            "BOOTAA64.EFI",
            boots=False,
        )
        yield case(
            "ia32",
            "a boot loader for 32 bits only",
            lambda n: esp(n, {FALLBACK: None, "/EFI/BOOT/BOOTIA32.EFI": self.c.sd}),
            BREACH,
            "BOOTIA32.EFI",
        )
        yield case(
            "not-removable",
            "a boot loader in \\EFI\\debian, that only a boot entry of the firmware names",
            lambda n: esp(n, {FALLBACK: None, "/EFI/debian/grubx64.efi": self.c.grub}),
            BREACH,
            "/EFI/debian/grubx64.efi",
            boots=False,
        )
        yield case(
            "blscfg",
            "GRUB that reads entries by blscfg: one without an initrd",
            lambda n: self.c.on_root(
                n,
                {FALLBACK: self.c.grub, "/EFI/debian/grub.cfg": self._search()},
                {
                    "/boot/grub/grub.cfg": b"set default=0\ninsmod blscfg\nblscfg\n",
                    "/boot/loader/entries/a.conf": self.c.entry(kernel="linux /boot/vmlinuz", initrd=""),
                },
            ),
            BREACH,
            "needs an initrd",
        )
        menu = self.c.boot["/boot/grub/grub.cfg"]
        yield case(
            "grub-second",
            "GRUB whose default is the second entry, which has no kernel",
            lambda n: self.c.on_root(
                n,
                {FALLBACK: self.c.grub, "/EFI/debian/grub.cfg": self._search()},
                {
                    "/boot/grub/grub.cfg": menu.replace(b"default=0", b'default="1"')
                    + menu.partition(b"\n")[2].replace(b"Debian", b"Other").replace(b"/boot/vmlinuz", b"/boot/gone")
                },
            ),
            BREACH,
            "/boot/gone",
        )
        padding = bytes(-len(self.k.archive()) % 512 + 512)
        yield case(
            "initrd-chain",
            "an initrd of a plain archive, zeros, and a compressed one",
            lambda n: esp(n, {"/initrd": self.k.archive("0")[:0] + self.k.archive() + padding + self.c.initrd}),
            boots=True,
        )

    def _roots(self) -> Iterator[Case]:
        esp = self.c.on_esp
        line = {CONF: self.c.entry("root=/dev/sda2 console=ttyS0")}
        magics = {
            "bcachefs": (4096 + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
            "ntfs": (3, b"NTFS    "),
            "exfat": (3, b"EXFAT   "),
            "linux_raid_member": (4096, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
            "BitLocker": (3, b"-FVE-FS-"),
            "jfs": (32768, b"JFS1\1\0\0\0"),
            "nilfs2": (1024 + 6, b"\x34\x34"),
            "reiserfs": (65536 + 52, b"ReIsEr2Fs"),
            "apfs": (32, b"NXSB"),
            "hfsplus": (1024, b"H+\0\4"),
        }
        for kind, (place, magic) in magics.items():
            yield case(f"root-{kind}", f"root is {kind}", partial(self._magic, line, place, magic), words=kind)
        yield case(
            "vda",
            "root=/dev/vda2, as virtio-blk calls it",
            lambda n: esp(n, {CONF: self.c.entry("root=/dev/vda2 console=ttyS0")}),
            boots=True,
        )
        yield case(
            "uppercase",
            'root=PARTUUID= in capitals, root="UUID=…"',
            lambda n: esp(n, {CONF: self.c.entry(f'root="UUID={ROOT.upper()}" console=ttyS0')}),
        )
        yield case(
            "gpt-auto",
            "no root=, a root partition by its type",
            lambda n: esp(n, {CONF: self.c.entry("console=ttyS0 rw")}),
        )

    # How some of them are made.

    def _search(self) -> bytes:
        return f"search.fs_uuid {ROOT} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n".encode()

    def _copy_of_root(self) -> Path:
        path = self.k.place / "twin.part"
        shutil.copy(self.k.ext4(16, {}), path)
        return path

    def _magic(self, line: dict[str, bytes], place: int, magic: bytes, name: str) -> Path:
        path = self.k.place / "magic.part"
        data = bytearray(16 * MIB)
        data[place : place + len(magic)] = magic
        path.write_bytes(data)
        return self.c.on_esp(name, line, root=path)

    def _uki_without(self, section: str) -> bytes:
        """Return a unified kernel image one section of which has another name."""
        data = self.k.uki(LINE)
        return data.replace(section.encode().ljust(8, b"\0"), b".gone\0\0\0", 1)

    def _uki_profiles(self, name: str) -> Path:
        one = self.k.uki(LINE)
        (self.k.place / "base.efi").write_bytes(one)
        for number in (0, 1):
            self.k.run(
                "/usr/bin/ukify",
                "build",
                f"--profile=ID=p{number}",
                f"--cmdline={LINE} profile={number}",
                f"--output={self.k.place / f'p{number}.efi'}",
            )
        joined = [f"--join-profile={self.k.place / f'p{number}.efi'}" for number in (0, 1)]
        self.k.run(
            "/usr/bin/ukify",
            "build",
            f"--linux={self.k.place / 'k'}",
            f"--initrd={self.k.place / 'i'}",
            "--os-release=ID=appliance\n",
            *joined,
            f"--output={self.k.place / 'many.efi'}",
            "--stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        )
        none = dict.fromkeys(self.c.base)
        return self.c.on_esp(name, {**none, FALLBACK: (self.k.place / "many.efi").read_bytes()})

    def _uki_xbootldr(self, name: str) -> Path:
        esp = self.k.fat(40, {FALLBACK: self.c.sd}).rename(self.k.place / "esp.part")
        more = self.k.fat(80, {"/EFI/Linux/a.efi": self.k.uki(LINE)})
        parts = [
            Part(size=40, type=ESP, content=esp, name="ESP"),
            Part(size=80, type=XBOOTLDR, content=more, name="boot"),
            Part(size=16, type=X86_ROOT, content=self.k.ext4(16, {}), name="root"),
        ]
        return self.k.disk(name, parts)

    def _hybrid(self, name: str) -> Path:
        path = self.c.on_esp(name)
        with path.open("r+b") as file:
            # An ESP of 80 MiB from 1 MiB on, as 0c, in front of EE (gdisk's recovery menu, `h`).
            os.pwrite(file.fileno(), struct.pack("<B3sB3sII", 0, bytes(3), 0x0C, bytes(3), 2048, 80 * 2048), 446)
            os.pwrite(file.fileno(), struct.pack("<B3sB3sII", 0, bytes(3), 0xEE, bytes(3), 1, 2047), 462)
        return path

    def _sectors_4k(self, name: str) -> Path:
        path = self.k.place / f"{name}.raw"
        esp, root = self.k.fat(300, self.c.base, "-F32", "-S4096", "-s1"), self.k.ext4(16, {})
        with path.open("wb") as file:
            file.truncate(320 * MIB)
        script = f"label: gpt\nstart=256,size={300 * 256},type={ESP}\nsize={16 * 256},type={X86_ROOT}\n"
        self.k.run("sfdisk", "-q", "--sector-size", "4096", str(path), stdin=script)
        self._write(path, esp, 1)
        self._write(path, root, 301)
        return path

    def _holes(self, name: str) -> Path:
        path = self.k.place / f"{name}.raw"
        with path.open("wb") as file:
            file.truncate(100 * MIB)
        script = (
            f"label: gpt\n{path}5 : start={18 * 2048},size={80 * 2048},type={ESP}\n"
            f"{path}100 : start=2048,size={16 * 2048},type={X86_ROOT}\n"
        )
        self.k.run("sfdisk", "-q", str(path), stdin=script)
        self._write(path, self.k.fat(80, self.c.base), 18)
        self._write(path, self.k.ext4(16, {}), 1)
        return path

    def _grown(self, name: str) -> Path:
        path = self.c.on_esp(name)
        os.truncate(path, path.stat().st_size + 64 * MIB)
        return path

    def _logical(self, name: str) -> Path:
        path = self.k.place / f"{name}.raw"
        with path.open("wb") as file:
            file.truncate(110 * MIB)
        script = f"label: dos\nstart=2048,size={80 * 2048},type=ef\nstart={82 * 2048},size={20 * 2048},type=5\n"
        self.k.run("sfdisk", "-q", str(path), stdin=f"{script}start={83 * 2048},size={16 * 2048},type=83\n")
        self._write(path, self.k.fat(80, self.c.base), 1)
        self._write(path, self.k.ext4(16, {}), 83)
        return path

    def _superfloppy(self, name: str) -> Path:
        files = {**self.c.base, CONF: self.c.entry("console=ttyS0")}
        return self.k.fat(80, files).rename(self.k.place / f"{name}.raw")

    def _write(self, path: Path, content: Path, at: int) -> None:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), content.read_bytes(), at * MIB)
