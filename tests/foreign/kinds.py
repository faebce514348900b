"""Disks of kinds that were judged wrongly when they were first met, and why each is what it is."""

import os
import struct
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vmtests.sizes import MIB

from .cases import BREACH, FALLBACK, LINE, MENU, NOTE, OK, REFUSED, SEARCH, Case, Cases, case
from .disks import ESP, LINUX, PARTUUID, ROOT, X86_ROOT, Part

CONF, EXTRA = "/loader/entries/debian.conf", "/EFI/Linux/a.efi.extra.d/x.addon.efi"
OTHER = "99999999-2222-4333-8444-555555555555"
ELSEWHERE = f"root=UUID={OTHER} console=ttyS0"
SYSTEMD = {"/usr/lib/systemd/systemd": b"\x7fELF", "/sbin/init": b"\x7fELF"}


class Kinds:
    """Makes them with what `cases` has."""

    def __init__(self, cases: Cases) -> None:
        self.c = cases
        self.k = cases.k

    def all(self) -> Iterator[Case]:
        """Yield every case."""
        yield from self._unified()
        yield from self._loaders()
        yield from self._menus()
        yield from self._disks()
        yield from self._roots()
        yield from self._initrds()

    def _unified(self) -> Iterator[Case]:
        c, k = self.c, self.k
        none = dict.fromkeys(c.base)

        def of(name: str, there: str, own: str, extra: str, expected: str, words: str = "") -> Case:
            def make(name: str) -> Path:
                files = {FALLBACK: c.sd, "/EFI/Linux/a.efi": k.uki(own), EXTRA: self._addon(extra)}
                return c.on_esp(name, {**none, **files})

            return case(name, there, make, expected, words)

        yield of("addon-right", "an addon has the right root= and the console", ELSEWHERE, LINE, NOTE)
        yield of("addon-other", "an addon has another root=", LINE, ELSEWHERE, BREACH, OTHER)
        for name, own, other, expected in (
            ("profiles", LINE, ELSEWHERE, NOTE),
            ("profiles-elsewhere", ELSEWHERE, LINE, BREACH),
        ):
            there = f"a profile is joined with another root=, and the first, ukify's own, has {own}"
            yield case(name, there, partial(self._profiles, own, other), expected)
        yield case(
            "uki-arm-newer",
            "of two unified kernels the newer one is for ARM",
            lambda n: c.on_esp(n, {**none, FALLBACK: c.sd, "/EFI/Linux/a-9.efi": k.uki(LINE, version="9"),
                                   "/EFI/Linux/a-10.efi": self._arm(k.uki(LINE, version="10"))}, size=120),
            words="a-9.efi",
        )  # fmt: skip
        yield case(
            "uki-key",
            "an entry says `uki`, and systemd-boot is older than 258",
            lambda n: c.on_esp(n, {**none, FALLBACK: c.sd, "/k.efi": k.uki(LINE), CONF: b"title a\nuki /k.efi\n"}),
            BREACH,
            "say `efi`",
        )

    def _loaders(self) -> Iterator[Case]:
        c = self.c
        old = {"/vmlinuz": b"\xea\x05\0\xc0" + self.k.kernel[4:]}
        stub = "a kernel without EFI's stub behind systemd-boot"
        yield case("no-stub", stub, lambda n: c.on_esp(n, old), BREACH, "no EFI program")
        alone = {
            FALLBACK: c.sd.replace(b".sdmagic", b".xxmagic").replace(
                b"LoaderInfo: systemd-boot", b"SYSLINUX".ljust(24)
            ),
            "/EFI/BOOT/syslinux.cfg": b"DEFAULT l\nLABEL l\n LINUX /vmlinuz\n",
        }
        yield case("no-ldlinux", "SYSLINUX alone", lambda n: c.on_esp(n, alone), BREACH, "ldlinux.e64")
        shims = {
            FALLBACK: c.shim,
            "/EFI/BOOT/grubx64.efi": c.signed,
            "/EFI/BOOT/fbx64.efi": c.fallback,
            "/EFI/debian/shimx64.efi": c.shim,
            "/EFI/debian/grub.cfg": SEARCH.encode(),
            "/EFI/debian/BOOTX64.CSV": "shimx64.efi,debian,,x\n".encode("utf-16"),
        }
        yield case(
            "shim-goes-on",
            "shim's fallback starts a shim that has no GRUB",
            lambda n: c.on_root(n, shims),
            BREACH,
            "shim",
        )
        csv = {
            "/EFI/debian/BOOTX64.CSV": "loader.efi,debian,,x\n".encode("utf-16"),
            "/EFI/debian/loader.efi": c.signed,
        }
        yield case("shim-names", "shim's fallback starts what the table names",
                   lambda n: c.on_root(n, {**shims, **csv}), words="loader.efi")  # fmt: skip
        files = {"/boot/boot.scr": b"\x27\x05\x19\x56"}
        yield case(
            "u-boot",
            "U-Boot's script on ext4",
            lambda n: self.k.disk(n, [Part(size=16, type=LINUX, content=self.k.ext4(16, files))], table="dos"),
            BREACH,
            "U-Boot",
        )
        yield case("cut-plain", "an initrd that is not compressed was cut",
                   lambda n: c.on_esp(n, {"/initrd": self.k.archive()[:400_000]}), BREACH, "cut")  # fmt: skip

    def _menus(self) -> Iterator[Case]:
        c = self.c
        force = {"/loader/loader.conf": b"timeout menu-force\n"}
        yield case("menu-force", "systemd-boot's menu waits for ever", partial(c.on_esp, changed=force), NOTE, "a key")
        entry = MENU.partition("\n")[2]
        gone = entry.replace("/boot/vmlinuz", "/boot/gone")
        for name, menu, expected, words in (
            ("fallback", f"set default=0\nset fallback=1\n{gone}{entry}", NOTE, "falls back"),
            ("fallback-gone", f"set default=0\nset fallback=1\n{gone}{gone}", BREACH, "/boot/gone"),
            ("timeout", f"set timeout=-1\n{entry}", NOTE, "waits for a key"),
            ("password", f'set superusers="root"\n{entry}', NOTE, "waits for a password"),
        ):
            files = {"/boot/grub/grub.cfg": menu.encode()}
            esp = {FALLBACK: c.grub, "/EFI/debian/grub.cfg": SEARCH.encode()}
            yield case(f"grub-{name}", f"GRUB: {name}", partial(c.on_root, esp=esp, changed=files), expected, words)
        files = {"/boot/grub/grub.cfg": gone.encode(), "/boot/grub/own.cfg": entry.encode()}
        esp = {FALLBACK: c.grub, "/EFI/debian/grub.cfg": SEARCH.replace("grub.cfg", "own.cfg").encode()}
        yield case("grub-onward", "GRUB goes on to a menu of another name", partial(c.on_root, esp=esp, changed=files))

    def _disks(self) -> Iterator[Case]:
        yield case("stale-gpt", "a GPT that is left under an MBR", self._stale_gpt, NOTE, "left from before")
        yield case("cut.iso", "a CD-ROM image that was cut", self._cut_iso, REFUSED, "truncated")
        yield case("mirrored-esp", "an ESP in an array with its superblock at the end", self._mirrored)
        for name, place, value in (("fat-media", 21, b"\xe5"), ("fat-mirror", 40, b"\x81")):
            yield case(
                name,
                f"a FAT that firmware does not mount: byte {place}",
                partial(self._fat, place, value),
                BREACH,
                "not read by firmware",
            )
        name = "/Linux [1] (a+b)"
        files = {"/vmlinuz": None, name: self.k.kernel, CONF: self.c.entry(kernel=f"linux {name}")}
        yield case("fat-brackets", "brackets in a kernel's name", lambda n: self.c.on_esp(n, files))
        yield case("fat-umlauts", "umlauts in a kernel's name", self._umlauts)
        yield case("fat-hidden", "hidden files on the ESP", self._hidden)

    def _roots(self) -> Iterator[Case]:
        for kind, place, magic in (
            ("bcache", 0x1018, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
            ("stratis", 0x204, b"!Stra0tis\x86\xff\x02^\x41rh"),
            ("vdo", 0, b"dmvdo001"),
            ("drbd", 16 * MIB - 4036, b"\x83\x74\x02\x6d"),
            ("ddf", 16 * MIB - 512, b"\xde\x11\xde\x11"),
            ("isw", 16 * MIB - 1024, b"Intel Raid ISM Cfg Sig. "),
            ("DM_integrity", 0, b"integrt\0"),
        ):
            yield case(f"in-{kind}", f"root is in {kind}", partial(self._inside, place, magic), words=kind)
        for name, line, expected in (
            ("fstab-gone", f"UUID={OTHER} /var ext4 defaults 0 2\n", BREACH),
            ("fstab-nofail", f"UUID={OTHER} /var ext4 nofail 0 2\n", NOTE),
        ):
            yield case(name, f"fstab: {line.strip()}", partial(self._fstab, line), expected)
        for key in ("mount.usr=UUID=", "rd.luks.uuid=", "systemd.verity_root_data=PARTUUID="):
            entry = {CONF: self.c.entry(f"{LINE} {key}{OTHER}")}
            name = f"awaited-{key.partition('=')[0]}"
            yield case(name, f"{key} of nothing", partial(self.c.on_esp, changed=entry), BREACH, "leads nowhere")
        entry = {CONF: self.c.entry(f"{LINE} ostree=/ostree/boot.1/x/0")}
        yield case("ostree-gone", "ostree= of no deployment", partial(self.c.on_esp, changed=entry), BREACH, "ostree=")
        yield case("xfs-newer", "an xfs that is newer than the kernel", self._xfs, BREACH, "since Linux")
        yield case("data-newer", "a damaged ext4 that is not root", self._data, NOTE, "unknown features")

    def _initrds(self) -> Iterator[Case]:
        partuuid = f"root=PARTUUID={PARTUUID} console=ttyS0"
        for name, change, line, expected, words in (
            ("gone", "rm init", LINE, BREACH, "no /init"),
            ("gone-partuuid", "rm init", partuuid, BREACH, "no /init"),
            ("mode", "chmod 644 init", LINE, BREACH, "not executable"),
            ("link", "ln -sf usr/lib/x init", LINE, BREACH, "leads nowhere"),
            ("shell", "rm bin/busybox", partuuid, BREACH, "/bin/busybox"),
            ("rdinit", "mv init start", f"{LINE} rdinit=/start", OK, ""),
        ):
            there = f"an initrd after `{change}`, {line}"
            yield case(f"init-{name}", there, partial(self._initrd, change, line), expected, words)

    # How some of them are made.

    def _addon(self, line: str) -> bytes:
        out = self.k.place / "addon"
        stub = "--stub=/usr/lib/systemd/boot/efi/addonx64.efi.stub"
        self.k.run("/usr/bin/ukify", "build", f"--cmdline={line}", f"--output={out}", stub)
        return out.read_bytes()

    def _profiles(self, own: str, other: str, name: str) -> Path:
        c, k = self.c, self.k
        k.uki(own)  # leaves the kernel and the initrd
        joined, out = k.place / "joined", k.place / "uki"
        k.run("/usr/bin/ukify", "build", "--profile=ID=other", f"--cmdline={other}", f"--output={joined}")
        k.run("/usr/bin/ukify", "build", f"--linux={k.place / 'k'}", f"--initrd={k.place / 'i'}", f"--cmdline={own}",
              "--os-release=ID=appliance\n", f"--join-profile={joined}",
              "--stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub", f"--output={out}")  # fmt: skip
        return c.on_esp(name, {**dict.fromkeys(c.base), FALLBACK: out.read_bytes()})

    def _arm(self, program: bytes) -> bytes:
        (start,) = struct.unpack_from("<I", program, 0x3C)
        return program[: start + 4] + (0xAA64).to_bytes(2, "little") + program[start + 6 :]

    def _poke(self, path: Path, at: int, data: bytes) -> Path:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)
        return path

    def _mirrored(self, name: str) -> Path:
        esp = self.k.fat(79, self.c.base)
        with esp.open("r+b") as file:
            file.truncate(80 * MIB)
        head = struct.pack("<4sIII16s32s", b"\xfc\x4e\x2b\xa9", 1, 0, 0, uuid.UUID(OTHER).bytes, b"host:esp")
        self._poke(esp, (80 * 2048 - 16) // 8 * 8 * 512, head)
        parts = [
            Part(size=80, type=ESP, content=esp),
            Part(size=16, type=X86_ROOT, content=self.k.ext4(16, {})),
        ]
        return self.k.disk(name, parts)

    def _fat(self, place: int, value: bytes, name: str) -> Path:
        return self._poke(self.c.on_esp(name), MIB + place, value)

    def _hidden(self, name: str) -> Path:
        path = self.c.on_esp(name)
        self.k.run("mattrib", "+h", "+s", "-i", f"{path}@@1M", "::/vmlinuz")
        return path

    def _initrd(self, change: str, line: str, name: str) -> Path:
        self.k.archive()  # leaves its directory
        out = self.k.place / "changed.cpio"
        pack = f"find . | LC_ALL=C sort | cpio -o -H newc --quiet > {out}"
        self.k.run("sh", "-ec", f"cd {self.k.place / 'initrd'}; {change}; {pack}")
        return self.c.on_esp(name, {CONF: self.c.entry(line), "/initrd": out.read_bytes()})

    def _stale_gpt(self, name: str) -> Path:
        table = self.c.on_esp(name).read_bytes()[512 : 34 * 512]
        return self._poke(self.c.on_esp(name, table="dos"), 512, table)

    def _cut_iso(self, name: str) -> Path:
        tree = self.k.directory({"/efi.img": self.k.fat(8, {FALLBACK: self.c.grub}, "-F12").read_bytes()})
        out = self.k.place / name
        self.k.run("xorrisofs", "-quiet", "-o", str(out), "-e", "efi.img", "-no-emul-boot", str(tree))
        os.truncate(out, out.stat().st_size // 2)
        return out

    def _umlauts(self, name: str) -> Path:
        # Which letters mtools writes is the host's language; these are the first five of a long name.
        files = {
            "/vmlinuz": None,
            "/qwxyz-6.12.kernel": self.k.kernel,
            CONF: self.c.entry(kernel="linux /Größe-6.12.kernel"),
        }
        path = self.c.on_esp(name, files)
        place = path.read_bytes().index("qwxyz".encode("utf-16-le"))
        return self._poke(path, place, "größe".encode("utf-16-le"))

    def _fstab(self, line: str, name: str) -> Path:
        return self.c.on_esp(name, root=self.k.ext4(16, {"/etc/fstab": line.encode(), **SYSTEMD}))

    def _inside(self, place: int, magic: bytes, name: str) -> Path:
        path = self.k.place / "inside.part"
        path.write_bytes(bytes(place) + magic + bytes(16 * MIB - place - len(magic)))
        return self.c.on_esp(name, root=path)

    def _xfs(self, name: str) -> Path:
        path = self.k.system("xfs")
        (bits,) = struct.unpack(">I", path.read_bytes()[216:220])
        return self.c.on_esp(name, root=self._poke(path, 216, struct.pack(">I", bits | 0x100)))

    def _data(self, name: str) -> Path:
        data = self.k.ext4(16, {}).rename(self.k.place / "data.part")
        self.k.run("tune2fs", "-U", OTHER, "-L", "data", str(data))
        self._poke(data, 1024 + 0x62, b"\x88")
        line = {CONF: self.c.entry(f"root=UUID={ROOT} console=ttyS0")}
        return self.c.on_esp(name, line, more=(Part(size=16, type=LINUX, content=data, name="data"),))
