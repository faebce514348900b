"""Disks as distributions and boards lay them out: Fedora, CoreOS, Flatcar, Alpine, NixOS, Yocto, OpenWrt, a Pi."""

import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from .cases import BREACH, FALLBACK, LINE, NOTE, Case, Cases, case
from .disks import BIOS_GRUB, ESP, LINUX, PARTUUID, ROOT, X86_ROOT, XBOOTLDR, Part

CONF = "/loader/entries/debian.conf"
FLATCAR_USR = "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6"
SECOND = PARTUUID[:-1] + "6"
INIT = {"/sbin/init": b"#!/bin/sh\n"}


class Makers:
    """Makes them with what `cases` has."""

    def __init__(self, cases: Cases) -> None:
        self.c = cases
        self.k = cases.k

    def all(self) -> Iterator[Case]:
        """Yield every case."""
        c = self.c
        none = dict.fromkeys(c.base)
        yield case("fedora", "GRUB, entries by blscfg on a boot partition, root on btrfs", self._fedora)
        coreos = "ostree, entries by blscfg, root on xfs"
        yield case("coreos", coreos, partial(self._coreos, "/ostree/fcos-1/vmlinuz"))
        yield case("coreos-gone", f"{coreos}, and no kernel", partial(self._coreos, "/gone"), BREACH, "/gone")
        yield case("flatcar", "two /usr, one of them empty, root by its label", self._flatcar)
        yield case("alpine.iso", "a CD-ROM that is a disk too, GRUB", self._alpine)
        yield case("openwrt", "GRUB on the ESP, squashfs by PARTUUID, no initrd", self._openwrt)
        slots = "two roots, no initrd"
        yield case("yocto", slots, lambda n: self._slots(n, PARTUUID))
        yield case(
            "yocto-empty", f"{slots}, root= is the empty one", lambda n: self._slots(n, SECOND), BREACH, "empty"
        )
        yield case("nixos-grub", "GRUB's device in a variable", partial(self._nixos, "/kernels/bzImage"))
        yield case("nixos-grub-gone", "the same, and no kernel", partial(self._nixos, "/gone"), BREACH, "/gone")
        yield case("raspberry-pi", "a Raspberry Pi's", self._raspberry, BREACH, "Raspberry Pi")
        yield case(
            "gpt-elsewhere", "the GPT's entries are in sector 64", lambda n: self._entries(c.on_esp(n)), boots=True
        )
        yield case(
            "gpt-backup-only",
            "the primary GPT is gone",
            lambda n: self._poke(c.on_esp(n), 512, bytes(512)),
            NOTE,
            boots=True,
        )
        yield case(
            "devicetree",
            "an entry whose devicetree is missing",
            lambda n: c.on_esp(n, {CONF: c.entry(kernel="linux /vmlinuz\ndevicetree /gone.dtb")}),
            BREACH,
            "/gone.dtb",
        )
        yield case("no-sections", "a program without sections", self._no_sections, BREACH, "no sections")
        yield case(
            "no-verity",
            "roothash= and no hash tree",
            lambda n: c.on_esp(n, {**none, FALLBACK: self.k.uki(f"{LINE} roothash={'ab' * 32}")}),
            BREACH,
            "roothash",
        )
        yield case(
            "stale-menu",
            "a menu in /EFI/BOOT that GRUB, whose prefix is /EFI/debian, does not read",
            lambda n: c.on_root(
                n,
                {
                    FALLBACK: c.shim,
                    "/EFI/BOOT/grubx64.efi": c.signed,
                    "/EFI/BOOT/grub.cfg": b"menuentry 'old' {\n linux /gone\n}\n",
                    "/EFI/debian/grub.cfg": self._stub(ROOT, "/boot/grub"),
                },
            ),
        )
        yield case("3-tib", "3 TiB, nearly nothing in them", self._large, NOTE)
        many = tuple(Part(size=1, type=LINUX) for _ in range(98))
        yield case("partitions", "a hundred partitions", lambda n: c.on_esp(n, more=many))

    def _stub(self, identifier: str, directory: str) -> bytes:
        text = f"search --no-floppy --fs-uuid --set=dev {identifier}\nset prefix=($dev){directory}\n"
        return f"{text}export $prefix\nconfigfile $prefix/grub.cfg\n".encode()

    def _boot(self, files: Mapping[str, bytes]) -> Path:
        path = self.k.ext4(64, files)
        self.k.run("tune2fs", "-U", SECOND, str(path))
        return path.rename(self.k.place / "boot.part")

    def _fedora(self, name: str) -> Path:
        entry = self.c.entry(f"root=UUID={ROOT} ro rootflags=subvol=root console=ttyS0 $tuned_params")
        menu = b'load_env\nset default="${saved_entry}"\ninsmod blscfg\nblscfg\n'
        files = {"/vmlinuz": self.k.kernel, "/initrd": self.c.initrd, "/grub2/grub.cfg": menu, CONF: entry}
        boot = self._boot(files)
        esp = self.k.fat(40, {FALLBACK: self.c.grub, "/EFI/fedora/grub.cfg": self._stub(SECOND, "/grub2")})
        parts = [
            Part(size=1, type=BIOS_GRUB),
            Part(size=40, type=ESP, content=esp),
            Part(size=64, type=XBOOTLDR, content=boot),
            Part(size=128, type=LINUX, content=self.k.system("btrfs")),
        ]
        return self.k.disk(name, parts)

    def _coreos(self, kernel: str, name: str) -> Path:
        line = f"$ignition_firstboot ostree=/ostree/boot.1/fcos/x/0 root=UUID={ROOT} rw console=ttyS0"
        entry = self.c.entry(line, f"linux {kernel}", "initrd /ostree/fcos-1/initramfs.img\n")
        menu = b"if [ -e ($prefix)/ignition.firstboot ]; then\n  set ignition_firstboot=1\nfi\ninsmod blscfg\nblscfg\n"
        boot = self._boot(
            {
                "/ostree/fcos-1/vmlinuz": self.k.kernel,
                "/ostree/fcos-1/initramfs.img": self.c.initrd,
                "/grub2/grub.cfg": menu,
                "/loader/entries/ostree-1.conf": entry,
            }
        )
        esp = self.k.fat(40, {FALLBACK: self.c.grub, "/EFI/fedora/grub.cfg": self._stub(SECOND, "/grub2")})
        parts = [
            Part(size=40, type=ESP, content=esp, name="EFI-SYSTEM"),
            Part(size=64, type=LINUX, content=boot, name="boot"),
            Part(size=320, type=X86_ROOT, content=self.k.system("xfs"), name="root"),
        ]
        return self.k.disk(name, parts)

    def _flatcar(self, name: str) -> Path:
        line = f"root=LABEL=system mount.usr=/dev/mapper/usr verity.usr=PARTUUID={PARTUUID} console=ttyS0"
        menu = f"set default=a\nmenuentry 'Flatcar' --id=a {{\n linux /flatcar/a {line}\n initrd /flatcar/initrd\n}}\n"
        files = {"/flatcar/a": self.k.kernel, "/flatcar/initrd": self.c.initrd, "/EFI/BOOT/grub.cfg": menu.encode()}
        esp = self.k.fat(80, {FALLBACK: self.c.grub, **files})
        parts = [
            Part(size=80, type=ESP, content=esp, name="EFI-SYSTEM"),
            Part(size=16, type=FLATCAR_USR, content=self.k.system("squashfs"), name="USR-A", uuid=PARTUUID),
            Part(size=16, type=FLATCAR_USR, name="USR-B"),
            Part(size=16, type=LINUX, content=self.k.ext4(16, {}), name="ROOT"),
        ]
        return self.k.disk(name, parts)

    def _alpine(self, name: str) -> Path:
        tree = self.k.place / "alpine"
        shutil.rmtree(tree, ignore_errors=True)
        menu = b"menuentry 'Linux' {\n linux /boot/vmlinuz-lts modules=loop console=ttyS0\n initrd /boot/initrd\n}\n"
        efi = self.k.fat(8, {FALLBACK: self.c.grub}, "-F12").read_bytes()
        files = {"vmlinuz-lts": self.k.kernel, "initrd": self.c.initrd, "grub/grub.cfg": menu, "grub/efi.img": efi,
                 "syslinux/isolinux.bin": bytes(4096)}  # fmt: skip
        for path, data in files.items():
            (tree / "boot" / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / "boot" / path).write_bytes(data)
        out = self.k.place / name
        bios = ("-b", "boot/syslinux/isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-eltorito-alt-boot")
        uefi = ("-e", "boot/grub/efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat")
        self.k.run("xorrisofs", "-quiet", "-o", str(out), *bios, *uefi, str(tree))
        return out

    def _openwrt(self, name: str) -> Path:
        line = f"root=PARTUUID={PARTUUID} rootwait console=ttyS0,115200n8 noinitrd"
        menu = f"search -l kernel -s root\nmenuentry 'OpenWrt' {{\n linux /boot/vmlinuz {line}\n}}\n"
        files = {FALLBACK: self.c.grub, "/boot/grub/grub.cfg": menu.encode(), "/boot/vmlinuz": self.k.kernel}
        parts = [
            Part(size=40, type=ESP, content=self.k.fat(40, files, "-F16", "-n", "kernel")),
            Part(size=16, type=LINUX, content=self.k.system("squashfs"), uuid=PARTUUID),
        ]
        return self.k.disk(name, parts)

    def _slots(self, name: str, root: str) -> Path:
        files = {**self.c.base, CONF: self.c.entry(f"root=PARTUUID={root} console=ttyS0", initrd="")}
        parts = [
            Part(size=60, type=ESP, content=self.k.fat(60, files, "-F16"), name="boot"),
            Part(size=16, type=LINUX, content=self.k.ext4(16, INIT), name="full", uuid=PARTUUID),
            Part(size=16, type=LINUX, name="empty", uuid=SECOND),
        ]
        return self.k.disk(name, parts)

    def _nixos(self, kernel: str, name: str) -> Path:
        search = "search --set=drive1 --fs-uuid CAFE-0001"
        line = f"linux ($drive1)/{kernel} init=/nix/store/x-nixos/init console=ttyS0"
        menu = f"{search}\nmenuentry 'NixOS' {{\n{search}\n {line}\n initrd ($drive1)//kernels/initrd\n}}\n"
        files = {"/grub/grub.cfg": menu.encode(), "/kernels/bzImage": self.k.kernel, "/kernels/initrd": self.c.initrd}
        return self.c.on_esp(name, {**dict.fromkeys(self.c.base), FALLBACK: self.c.grub, **files})

    def _raspberry(self, name: str) -> Path:
        files = {"/bootcode.bin": b"x", "/start4.elf": b"x", "/config.txt": b"x", "/kernel8.img": b"x"}
        parts = [
            Part(size=40, type=ESP, content=self.k.fat(40, files)),
            Part(size=16, type=LINUX, content=self.k.ext4(16, INIT)),
        ]
        return self._poke(self.k.disk(name, parts, table="dos"), 450, b"\x0c")

    def _no_sections(self, name: str) -> Path:
        program = bytearray(self.c.sd[:1024])
        (start,) = struct.unpack_from("<I", program, 0x3C)
        program[start + 6 : start + 8] = bytes(2)
        return self.c.on_esp(name, {FALLBACK: bytes(program)})

    def _entries(self, path: Path) -> Path:
        """Move the entries of the primary GPT to sector 64, as images for boards do: a boot loader is before them."""
        with path.open("r+b") as file:
            entries = os.pread(file.fileno(), 128 * 128, 1024)
            header = bytearray(os.pread(file.fileno(), 92, 512))
            struct.pack_into("<Q", header, 72, 64)
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(bytes(header)))
            os.pwrite(file.fileno(), entries, 64 * 512)
            os.pwrite(file.fileno(), bytes(len(entries)), 1024)
            os.pwrite(file.fileno(), header, 512)
        return path

    def _large(self, name: str) -> Path:
        path = self.c.on_esp(name)
        os.truncate(path, 3 << 40)
        return path

    def _poke(self, path: Path, at: int, data: bytes) -> Path:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), data, at)
        return path
