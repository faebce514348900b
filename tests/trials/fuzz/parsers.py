"""The parsers, each as a function of bytes with good examples, and what it may raise."""

import fcntl
import functools
import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import cast
from unittest import mock

from tests.trials.fuzz.clouds import CLOUDS
from tests.trials.fuzz.guests import GUESTS
from tests.trials.fuzz.images import IMAGES
from tests.trials.fuzz.limits import Parser
from tests.trials.fuzz.lines import speaking
from vmtests import contract
from vmtests.boot import console, journal, replay
from vmtests.boot.scanner import Scanner
from vmtests.cli import bisect
from vmtests.emulator.http import ApiError, Request
from vmtests.emulator.listing import parse_filter
from vmtests.emulator.naming import metadata_of, parse_link
from vmtests.errors import VmtestsError
from vmtests.faults import cpio
from vmtests.gce import ledger
from vmtests.gce.errors import of_exception, of_operation
from vmtests.gce.share import Share
from vmtests.guest import facts
from vmtests.host import accel, firmware
from vmtests.host.formats import Packing, identify
from vmtests.host.tools import Toolbox
from vmtests.image import erofs, ext4, fat, gpt, grub, initramfs, kallsyms, loader, pe, spec, unpack
from vmtests.image.check import Check
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.filesystem import probe
from vmtests.machine.confine import disk_files
from vmtests.machine.qmp import Qmp
from vmtests.qemu import snapshots
from vmtests.report.bisect import Bisection
from vmtests.resources import fixture, read_object
from vmtests.testing.images import LINUX, MemoryDisk, entry, kernel, program, table

_NO_TOOLS = cast("Toolbox", None)


def _all(checks: Iterable[Check]) -> list[Check]:
    return list(checks)


@contextmanager
def _file(data: bytes, name: str = "file") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(data)
        yield path


# Disks.


def _gpt(data: bytes) -> None:
    disk = MemoryDisk(data)
    size = gpt.sector_size(disk)
    gpt.has_mbr(disk)
    gpt.mbr_types(disk)
    gpt.trusted_by_firmware(disk)
    gpt.claimed_sectors(disk, size or 512)
    for place in {size or 512, 512, 4096}:
        found = gpt.read(disk, place)
        for one in found.entries:
            found.start(one)
            found.length(one)


def _tables() -> list[bytes]:
    entries = [entry(LINUX, 40 + 8 * number, 47 + 8 * number, f"p{number}") for number in range(4)]
    return [bytes(table(entries, sectors=512, size=size).content) for size in (512, 4096)]


def _filesystems(data: bytes) -> None:
    disk = MemoryDisk(data)
    probe(disk)
    for holds, check, parse in ((erofs.holds, erofs.check, erofs.parse), (ext4.holds, ext4.check, ext4.parse)):
        parse(data[1024:])
        parse(data)
        if holds(disk):
            _all(check(disk, "partition", (6, 12)))
    fat.parse(data[:512])
    with tempfile.TemporaryFile() as file, suppress(FilesError):
        file.write(data)
        file.flush()
        files = FatFiles(file.fileno(), 0)
        for path in files.names().values():
            files.read(path, 1 << 16)


def _superblocks() -> list[bytes]:
    ext, ero = bytearray(1 << 16), bytearray(1 << 16)
    struct.pack_into("<IIIIIIIIII", ext, 1024, 64, 64, 0, 0, 0, 0, 2, 2, 8192, 8192)
    ext[1024 + 56 : 1024 + 58] = b"\x53\xef"
    ext[1024 + 88 : 1024 + 90] = (256).to_bytes(2, "little")
    struct.pack_into("<IIIBBHQ", ero, 1024, 0xE0F5E1E2, 0, 0, 12, 0, 0, 16)
    boot = bytearray(512)
    struct.pack_into("<3s8sHBHBHHBH", boot, 0, b"\xeb\x3c\x90", b"MSDOS5.0", 512, 4, 4, 2, 512, 8192, 0xF8, 32)
    boot[510:] = b"\x55\xaa"
    return [bytes(ext), bytes(ero), bytes(boot) + bytes(4096)]


def _ext_files(data: bytes) -> None:
    files = ExtFiles(MemoryDisk(data))
    files.find("/boot/vmlinuz")
    files.below("/boot", ".conf")
    if (found := files.find("/boot/vmlinuz")) is not None:
        files.read(found, 4096)


@functools.cache
def _ext_images() -> list[bytes]:
    """A file system of 256 KiB, as mke2fs(8) makes it, where it is on this host."""
    with tempfile.TemporaryDirectory() as directory:
        root, path = Path(directory, "root"), Path(directory, "disk")
        (root / "boot/loader").mkdir(parents=True)
        (root / "boot/vmlinuz").write_bytes(kernel())
        (root / "boot/loader/a.conf").write_text("title a\n")
        path.write_bytes(bytes(1 << 18))
        tool = next(
            (Path(place, "mke2fs") for place in ("/usr/sbin", "/sbin") if Path(place, "mke2fs").exists()), None
        )
        if tool is None or os.system(f"{tool} -q -F -t ext4 -O ^has_journal -d {root} {path} 2>/dev/null") != 0:
            return _superblocks()[:1]
        return [path.read_bytes()]


# Programs and archives.


def _pe(data: bytes) -> None:
    pe.fault(pe.parse(data))
    pe.parse_kernel(data)
    pe.initrd_format(data[:16])
    kallsyms.unpack(data)
    kallsyms.read(data)
    kallsyms.parse_map(data.decode("utf-8", "replace"))


def _initrd(data: bytes) -> None:
    list(initramfs.check_release(iter([data]), "initrd", "6.12.1-test", _NO_TOOLS))


def _initrds() -> list[bytes]:
    members: list[cpio.Member] = []
    cpio.put(members, "/usr/lib/modules/6.12.1-test/kernel/fs/erofs.ko", b"")
    cpio.put(members, "/usr/lib/modules/6.12.1-test/modules.builtin", b"kernel/fs/ext4/ext4.ko\n")
    plain = cpio.pack(members)
    return [plain, gzip.compress(plain), lzma.compress(plain), bytes(512) + plain]


def _archive(data: bytes) -> None:
    with _file(data) as path, (path.parent / "disk").open("w+b") as target, path.open("rb") as source:
        kind = identify(data[:4096], data[-512:], "disk.raw.tar.gz")
        if isinstance(kind, Packing) and kind is not Packing.ZSTD:
            unpack.unpack(path, source.fileno(), kind, "disk.raw.tar.gz", target.fileno(), _NO_TOOLS)


def _archives() -> list[bytes]:
    disk = _tables()[0]
    made = [gzip.compress(disk), lzma.compress(disk)]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with io.BytesIO() as plain:
            with tarfile.open(fileobj=plain, mode="w", format=form) as archive:
                member = tarfile.TarInfo("disk.raw")
                member.size = len(disk)
                archive.addfile(member, io.BytesIO(disk))
            made += [plain.getvalue(), gzip.compress(plain.getvalue())]
    sparse = tarfile.TarInfo("disk.raw")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 512
    head = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    head[386:410], head[483:495] = b"00000000000\0" + b"00000001000\0", b"00010000000\0"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return [*made, bytes(head) + disk[:512] + bytes(1024)]


def _qcow2(data: bytes) -> None:
    with _file(data) as path:
        disk_files(path)
    identify(data[:4096], data[-512:], "disk")


def _qcow2s() -> list[bytes]:
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 512, 8, 16, 1 << 20, 0, 1, 196608, 65536, 1, 0, 0, 4, 0, 0, 4, 104
    )
    data = struct.pack(">II", 0x44415441, 8) + b"data.raw" + bytes(8)
    return [(head + data).ljust(512, b"\0") + b"base.raw"]


# Text.


def _entries(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    one = loader.parse(text, "/loader/entries/a.conf")
    loader.counted(text[:200])
    loader.compare_versions(text[:2000], text[-2000:])
    loader.chosen([one], text[:100])
    grub.parse(text)
    grub.environment(text)
    grub.partition(grub.split(text[:2000])[0])


_ENTRY = b"""title NixOS\nsort-key nixos\nversion Gen 1\nlinux /EFI/nixos/kernel.efi\ninitrd /EFI/nixos/initrd.efi
options init=/nix/store/x/init root=fstab console=ttyS0\n"""
_GRUB = b"""set default=0\nmenuentry 'Debian' --class debian {\n search --no-floppy --fs-uuid --set=root 1234-5678
 linux /vmlinuz root=UUID=1 ro quiet\n initrd /initrd.img\n}\n"""


def _contract(data: bytes) -> None:
    with _file(data, "contract.toml") as path:
        contract.load(path)


def _image_json(data: bytes) -> None:
    """Read it in a directory in which there is what `_specs` names."""
    with _file(data, "image.json") as path:
        (path.parent / "store" / _STORE_NAME).mkdir(parents=True)
        (path.parent / "file").write_bytes(b"x")
        (path.parent / "list").write_text(f"/nix/store/{_STORE_NAME}\n", encoding="ascii")
        spec.load(path)


_STORE_NAME = "0123456789abcdfghijklmnpqrsvwxyz-a"


def _specs() -> list[bytes]:
    whole = {
        "version": 1,
        "name": "a",
        "esp": {"/EFI/BOOT/BOOTX64.EFI": "file", "/loader/loader.conf": "file"},
        "store": {"directory": "store", "paths": [f"/nix/store/{_STORE_NAME}"], "path_list": "list"},
        "registration": "file",
        "state": "/nix/var/nix",
        "root": [
            {"path": "/etc", "source": "store"},
            {"path": "/etc/a", "source": "file", "mode": "0600"},
            {"path": "/tmp", "mode": "1777"},
            {"path": "/usr", "symlink": f"/nix/store/{_STORE_NAME}"},
        ],
        "compression": "zstd,level=3",
        "seed": spec.DEFAULT_SEED,
    }
    promised = tomllib.loads(fixture("contract.toml").read_text(encoding="utf-8"))
    return [json.dumps(one).encode() for one in (whole, whole | {"contract": promised})]


def _console(data: bytes) -> None:
    scanner = Scanner()
    scanner.feed(data)
    scanner.finish()
    replay.explain(iter([data]))


def _consoles() -> list[bytes]:
    names = ("reference-ready", "fault-init-missing", "grub-rescue", "fault-root-full")
    return [fixture(f"consoles/{name}.log").read_bytes()[:20_000] for name in names]


def _export(data: bytes) -> None:
    with _file(data) as path:
        entries = journal.read(path)
    journal.last_words(entries)
    journal.units(entries, 0.0, {})
    journal.as_console((data,))


_EXPORT = b"""__REALTIME_TIMESTAMP=1700000000000000\n__MONOTONIC_TIMESTAMP=1000000\n_TRANSPORT=journal\nPRIORITY=3
MESSAGE=hello\n_SYSTEMD_UNIT=a.service\n\n__REALTIME_TIMESTAMP=1700000000000001\n__MONOTONIC_TIMESTAMP=2
MESSAGE\n\x05\0\0\0\0\0\0\0hello\n\n__REALTIME_TIMESTAMP=1700000000000002\n__MONOTONIC_TIMESTAMP=3
MESSAGE=Failed to start a.\nUNIT=a.service\nJOB_TYPE=start\nJOB_RESULT=failed\n\n"""


def _facts(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (facts.parse_mountinfo, facts.parse_units, facts.parse_journal, facts.parse_registration):
        with suppress(VmtestsError):
            parse(text)
    facts.parse_cmdline(text)
    facts.unescape(text)


_FACTS = [
    b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
    b"Id=a.service\nActiveState=active\nSubState=running\nResult=success\n\n",
    b'{"MESSAGE":"a","PRIORITY":"3","__MONOTONIC_TIMESTAMP":"1","_SYSTEMD_UNIT":"a.service"}\n',
    b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a\nsha256:00\n10\n\n0\n",
]


# Others' answers.


def _qmp(data: bytes) -> None:
    with speaking(data) as ours, Qmp(ours, lambda event: None) as qmp:
        qmp.execute("query-status", timeout=30.0)
        qmp.execute("human-monitor-command", {"command-line": "info usernet"}, timeout=30.0)


_QMP = b"""{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r
\0{"return": {}}\r\n\0{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}\r
{"return": {"status": "running", "singlestep": false, "running": true}, "id": "__qmp#00000"}\r
\0{"return": "VLAN", "id": "__qmp#00001"}\r\n{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r
\0{"return": {"status": "paused", "singlestep": false, "running": false}, "id": "__qmp#00002"}\r\n"""


def _answers(data: bytes) -> None:
    import requests
    from google.api_core.exceptions import from_http_response
    from google.cloud import compute_v1
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    response = requests.Response()
    response.status_code, response._content = 400 + len(data) % 200, data
    response.request = requests.Request("GET", "http://127.0.0.1/").prepare()
    try:
        error = from_http_response(response)  # type: ignore[no-untyped-call]
    except (AttributeError, TypeError, RecursionError) as misread:
        error = misread
    assert of_exception("asking", error)
    try:
        operation = compute_v1.Operation.from_json(data.decode("utf-8", "replace"), ignore_unknown_fields=True)
    except (ParseError, ValueError, RecursionError) as error:
        of_exception("asking", error)
        return
    of_operation("asking", operation)


_QUOTA = {"quotaInfo": {"limitName": "CPUS", "limit": 8.0, "dimensions": {"region": "r"}}}
_ANSWERS = [
    json.dumps(one).encode()
    for one in (
        {"error": {"code": 403, "message": "no", "errors": [{"reason": "forbidden", "message": "no"}], "details": []}},
        {
            "name": "o",
            "status": "DONE",
            "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "m", "errorDetails": [_QUOTA]}]},
        },
    )
]


def _requests(data: bytes) -> None:
    text = data.decode("latin-1")
    request = Request.of("POST", f"/compute/v1/projects/p?{text[:200]}", _no_headers(), io.BytesIO(data))
    for call in (
        request.json,
        lambda: parse_filter(text[:2000])({"name": "a", "labels": {"a": "b"}}),
        lambda: parse_link(text[:500], "images", project="p"),
        lambda: metadata_of(request.json().get("metadata")),
        lambda: request.number("a", 1),
    ):
        with suppress(ApiError):
            call()


def _no_headers() -> Message:
    return Message()


_REQUESTS = [
    b'{"metadata": {"items": [{"key": "a", "value": "b"}]}, "name": "vm"}',
    b"labels.vmtests-run:* AND (name = a OR NOT status != RUNNING)",
    b"https://www.googleapis.com/compute/v1/projects/p/global/images/family/debian",
]


# Our own files, which somebody may have changed.


def _ledger(data: bytes) -> None:
    with _file(data) as path:
        ledger._read(path)


_LEDGER = b"""{"brand":{"run":"0123abcd","owner":"me","lifetime":3600.0},"endpoint":null}
{"what":"will","thing":{"kind":"image","name":"vmtests-a","project":"p"}}
{"what":"made","thing":{"kind":"image","name":"vmtests-a","project":"p"}}\n"""


def _record(data: bytes) -> None:
    with _file(data, snapshots.RECORD) as path, mock.patch.object(snapshots, "progress"):
        snapshots.load(path.parent)


_RECORD = json.dumps(
    {"version": snapshots.VERSION, "place": "/x", "image": "/y", "hardware": {}, "token": "t", "public_key": "k",
     "host_keys": [], "prepared": None, "past": {}, "state": ""}
).encode()  # fmt: skip


def _caches(data: bytes) -> None:
    """Read what was kept for the next time, and what a host says of its firmware."""
    with tempfile.TemporaryDirectory() as directory:
        (path := Path(directory, "etc/qemu/firmware/a.json")).parent.mkdir(parents=True)
        path.write_bytes(data)
        accel._recall(path, "key")
        read_object(path)
        firmware.survey(Path(directory))
        console._last_boot(data)
        search = Bisection(("a", "b", "c"))
        with suppress(VmtestsError):
            bisect._resume(path, search)
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)  # or there is nobody to share it with
            Share(path).find()


_DESCRIPTOR = {
    "description": "UEFI",
    "interface-types": ["uefi"],
    "mapping": {
        "device": "flash",
        "mode": "split",
        "executable": {"filename": "/etc/qemu/firmware/a.json", "format": "raw"},
        "nvram-template": {"filename": "/etc/qemu/firmware/a.json", "format": "raw"},
    },
    "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
    "features": ["acpi-s3"],
    "tags": [],
}
_CACHED = [
    json.dumps(one).encode()
    for one in (
        {"key": "key", "outcome": {"works": True, "reason": "", "hint": ""}},
        {"kind": "image", "name": "vmtests-a", "project": "p"},
        {"a": "good", "c": "bad"},
        {"boot": 2, "t": 0.5},
        _DESCRIPTOR,
    )
]


def _members(data: bytes) -> None:
    cpio.parse(data)


PARSERS = {
    **CLOUDS,
    **IMAGES,
    **GUESTS,
    "GPT": Parser(call=_gpt, good=_tables),
    "superblocks": Parser(call=_filesystems, good=_superblocks),
    "ext4 files": Parser(call=_ext_files, good=_ext_images, may=(FilesError,)),
    "PE and kernel": Parser(
        call=_pe,
        good=lambda: [kernel(), program(sections={".linux": kernel(), ".cmdline": b"a"})],
        found=(b"no_address T function\n",),
    ),
    "initrd": Parser(call=_initrd, good=_initrds),
    "initrd to change": Parser(call=_members, good=lambda: _initrds()[:1], found=(b"070701" + b"x" * 104,)),
    "archives": Parser(call=_archive, good=_archives),
    "qcow2": Parser(
        call=_qcow2,
        good=_qcow2s,
        found=(
            _qcow2s()[0].replace(b"data.raw", b"./././."),
            _qcow2s()[0][:20] + bytes(4) + _qcow2s()[0][24:],  # no bits of a cluster
        ),
    ),
    "boot entries": Parser(call=_entries, good=lambda: [_ENTRY, _GRUB]),
    "contract": Parser(call=_contract, good=lambda: [fixture("contract.toml").read_bytes()]),
    "image.json": Parser(call=_image_json, good=_specs),
    "console": Parser(call=_console, good=_consoles),
    "journal export": Parser(call=_export, good=lambda: [_EXPORT]),
    "facts": Parser(call=_facts, good=lambda: _FACTS),
    "QMP": Parser(slow=True, call=_qmp, good=lambda: [_QMP], found=(_QMP[:200], _QMP.replace(b"STOP", b"S\xff"))),
    "the API's answers": Parser(call=_answers, good=lambda: _ANSWERS),
    "requests to the emulator": Parser(
        call=_requests, good=lambda: _REQUESTS, may=(ApiError,), found=(b"https://a/compute/v1/projects/p/global",)
    ),
    "ledger": Parser(call=_ledger, good=lambda: [_LEDGER], found=(_LEDGER.replace(b"vmtests-a", b"\xff"),)),
    "cache entries": Parser(call=_caches, good=lambda: _CACHED),
    "kept machines": Parser(call=_record, good=lambda: [_RECORD], found=(_RECORD.replace(b"/x", b"\xff"),)),
}
"""By what they read."""
