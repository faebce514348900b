"""What an initrd holds, as far as a boot depends on it: kernel modules of the kernel that is booted.

The format is Documentation/driver-api/early-userspace/buffer-format.rst: archives in the newc format one behind the
other, the last of them compressed as a rule.
"""

import lzma
import re
import subprocess
import tempfile
import zlib
from collections.abc import Iterator

from vmtests.causes import Cause
from vmtests.contract import Contract, Partition
from vmtests.host.sandbox import tool_env
from vmtests.host.tools import Toolbox
from vmtests.image.check import Check, breach, note, passed

LIMIT = 256 << 20
"""Bytes of an initrd, packed and unpacked each, that are looked at."""

_SUBJECT, _WHAT = "ESP", "initrd modules"
_MAGICS = (b"070701", b"070702")
_HEADER = 110
_HEX = re.compile(rb"[0-9A-Fa-f]{104}")
_NAME_LIMIT = 4096
_TRAILER = b"TRAILER!!!"
_MODULE = re.compile(r"(?:usr/)?lib/modules/(?P<release>[^/]+)/(?:.*/)?(?P<name>[^/]+)\.ko(?:\.\w{1,4})?$")
_BUILTIN = re.compile(r"(?:usr/)?lib/modules/(?P<release>[^/]+)/modules\.builtin$")


class InitramfsError(Exception):
    """An initrd that cannot be looked into; the message says why."""


def check(packed: bytes, path: str, release: str | None, contract: Contract, toolbox: Toolbox) -> Iterator[Check]:
    """Check the initrd against the kernel `release` that boots it; `path` names it in sentences."""
    try:
        files = dict(members(unpack(packed, toolbox)))
    except InitramfsError as error:
        yield note(_SUBJECT, _WHAT, "unknown", f"initrd {path} was not looked into: {error}")
        return
    modules: dict[str, set[str]] = {}
    for name in files:
        if match := _MODULE.match(name):
            modules.setdefault(match["release"], set()).add(match["name"].replace("-", "_"))
    if not modules or release is None:
        yield passed(_SUBJECT, _WHAT, "none")
        return
    if release not in modules:
        others = ", ".join(sorted(modules)[:3])
        text = f"initrd {path} has modules of kernel {others}; the kernel that is booted is {release}"
        yield breach(
            _SUBJECT,
            _WHAT,
            others,
            text,
            "make the initrd for the kernel of the boot entry",
            cause=Cause.MODULE_MISSING,
        )
        return
    known = modules[release] | _builtin(files, release)
    builtin_told = any(_BUILTIN.match(name) for name in files)
    wanted = {"overlay", *(partition.filesystem for partition in _stage1(contract))}
    if builtin_told and (missing := sorted(wanted - known)):
        text = f"initrd {path} has no module {', '.join(missing)} for kernel {release}, which has it not built in"
        yield breach(
            _SUBJECT,
            _WHAT,
            f"no {', '.join(missing)}",
            text,
            "the initrd needs the kernel's module",
            cause=Cause.MODULE_MISSING,
        )
    else:
        yield passed(_SUBJECT, _WHAT, f"{len(modules[release])} of {release}")


def _stage1(contract: Contract) -> Iterator[Partition]:
    for mount in contract.stage1_mount:
        if mount.partition:
            yield contract.by_name(mount.partition)


def _builtin(files: dict[str, bytes], release: str) -> set[str]:
    for name, content in files.items():
        if (match := _BUILTIN.match(name)) and match["release"] == release:
            paths = content.decode("utf-8", errors="replace").split()
            return {path.rpartition("/")[2].removesuffix(".ko").replace("-", "_") for path in paths}
    return set()


def unpack(packed: bytes, toolbox: Toolbox) -> bytes:
    """Return all archives of an initrd, unpacked, one behind the other; raises InitramfsError."""
    plain = bytearray()
    rest = memoryview(packed)
    while rest and len(plain) < LIMIT:
        if rest[:6].tobytes() in _MAGICS:
            end = _end(rest)
            plain += rest[:end]
            rest = rest[end:]
        elif rest[0] == 0:
            rest = rest[1:]  # padding
        else:
            plain += _decompress(rest, toolbox)
            break
    return bytes(plain)


def _decompress(data: memoryview, toolbox: Toolbox) -> bytes:
    head = data[:6].tobytes()
    try:
        if head[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(data, LIMIT)
        if head == b"\xfd7zXZ\0":
            return lzma.LZMADecompressor().decompress(data.tobytes(), LIMIT)
    except (zlib.error, lzma.LZMAError) as error:
        raise InitramfsError(f"it cannot be unpacked: {error}") from error
    if head[:4] != b"\x28\xb5\x2f\xfd":
        raise InitramfsError("it is compressed with something that is not read here")
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        command = toolbox.argv("zstd", "--quiet", "--decompress", "--stdout")
        # A megabyte can unpack to a terabyte: what is beyond the limit is not waited for.
        with subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=tool_env()
        ) as process:
            assert process.stdout is not None
            plain = process.stdout.read(LIMIT)
            process.kill()
    if not plain:
        raise InitramfsError("it cannot be unpacked")
    return plain


def members(archives: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of the archives; what is damaged or cut ends the list."""
    at = 0
    while (found := _member(archives, at)) is not None:
        name, start, size = found
        at = _padded(start + size)
        if name != _TRAILER:
            yield name.decode("utf-8", errors="replace").removeprefix("./").lstrip("/"), archives[start : start + size]


def _end(archives: memoryview) -> int:
    """Return where the first archive ends."""
    at = 0
    while (found := _member(archives, at)) is not None:
        name, start, size = found
        at = _padded(start + size)
        if name == _TRAILER:
            break
    return at or len(archives)


def _member(archive: bytes | memoryview, at: int) -> tuple[bytes, int, int] | None:
    """Return name, first byte and size of the member at `at`; None where there is none."""
    header = bytes(archive[at : at + _HEADER])
    if len(header) < _HEADER or header[:6] not in _MAGICS or not _HEX.fullmatch(header, 6):
        return None
    size, name_size = int(header[54:62], 16), int(header[94:102], 16)
    if not 0 < name_size <= _NAME_LIMIT:
        return None
    name = bytes(archive[at + _HEADER : at + _HEADER + name_size - 1])
    return name, _padded(at + _HEADER + name_size), size


def _padded(size: int) -> int:
    return -(-size // 4) * 4
