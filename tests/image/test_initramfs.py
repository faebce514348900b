"""What an initrd holds is checked against the kernel that boots it."""

import gzip
import lzma
import time
from collections.abc import Callable

import pytest

from vmtests.contract import Contract
from vmtests.faults import cpio
from vmtests.host.tools import Toolbox
from vmtests.image import initramfs
from vmtests.image.check import Check

MODULES = "/usr/lib/modules/6.12.1-test"
FILES = {
    f"{MODULES}/kernel/fs/erofs.ko.xz": b"",
    f"{MODULES}/kernel/fs/overlay.ko": b"",
    f"{MODULES}/modules.builtin": b"kernel/fs/ext4/ext4.ko\nkernel/fs/fat/vfat.ko\n",
}


def _archive(files: dict[str, bytes]) -> bytes:
    members: list[cpio.Member] = []
    for path, content in files.items():
        cpio.put(members, path, content)
    return cpio.pack(members)


def _check(packed: bytes, contract: Contract, toolbox: Toolbox, release: str = "6.12.1-test") -> Check:
    (found,) = initramfs.check(packed, "initrd", release, contract, toolbox)
    return found


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        lzma.compress,
        lambda plain: _archive({"/kernel/x86/microcode": b"x"}) + bytes(512) + plain,
    ],
    ids=["plain", "gzip", "xz", "behind microcode"],
)
def test_modules_are_found_however_they_are_packed(
    pack: Callable[[bytes], bytes], contract: Contract, toolbox: Toolbox
) -> None:
    """Compressed or not, and behind an archive of its own for microcode."""
    assert _check(pack(_archive(FILES)), contract, toolbox).ok


def test_modules_of_another_kernel_are_a_breach(contract: Contract, toolbox: Toolbox) -> None:
    """No module of the initrd fits the kernel of the boot entry."""
    found = _check(_archive(FILES), contract, toolbox, "6.1.0-other")
    assert not found.ok
    assert (
        found.sentence == "initrd initrd has modules of kernel 6.12.1-test; the kernel that is booted is 6.1.0-other"
    )


def test_a_module_that_stage_1_needs_is_missed(contract: Contract, toolbox: Toolbox) -> None:
    """The store's and root's file systems and overlay are built in or in the initrd."""
    found = _check(_archive({path: data for path, data in FILES.items() if "erofs" not in path}), contract, toolbox)
    assert not found.ok
    assert "has no module erofs for kernel 6.12.1-test" in found.sentence


def test_a_kernel_that_does_not_say_what_is_built_in_is_trusted(contract: Contract, toolbox: Toolbox) -> None:
    """Without modules.builtin, nothing is known to be missing."""
    assert _check(_archive({f"{MODULES}/kernel/fs/overlay.ko": b""}), contract, toolbox).ok


@pytest.mark.parametrize(
    "packed", [b"\x1f\x8bgarbage", b"\x28\xb5\x2f\xfdgarbage", b"\x02\x21\x4c\x18lz4", b"070701x"]
)
def test_what_cannot_be_read_is_no_breach(packed: bytes, contract: Contract, toolbox: Toolbox) -> None:
    """A format that is not read here, or damage, is the kernel's to judge."""
    assert _check(packed, contract, toolbox).ok


@pytest.mark.parametrize("name", ["gz", "zst"])
def test_initrd_that_was_cut_is_a_breach(
    name: str, contract: Contract, toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The kernel goes on with what it has unpacked, which is no whole system."""
    packed = _packed(name, _archive({"a": bytes(range(256)) * 400, **OWN}), toolbox, tmp_path_factory)
    check = _check(packed[: len(packed) // 2], contract, toolbox)
    assert "breach" == check.status.value
    assert "was cut: its" in check.sentence


def test_what_comes_behind_a_whole_stream_is_no_fault(
    contract: Contract, toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The kernel skips zeros between archives, which zstd(1) does not; what came before counts."""
    packed = _packed("zst", _archive({"lib/modules/5.15.0-other/a.ko": b""}), toolbox, tmp_path_factory)
    assert "has modules of kernel 5.15.0-other" in _check(packed + bytes(512), contract, toolbox).sentence


OWN = {"lib/modules/6.12.1-test/kernel/fs/erofs/erofs.ko": b""}


def _packed(name: str, plain: bytes, toolbox: Toolbox, places: pytest.TempPathFactory) -> bytes:
    if name == "gz":
        return gzip.compress(plain)
    (place := places.mktemp("zstd") / "plain").write_bytes(plain)
    toolbox.run("zstd", "-q", place, "-o", place.with_suffix(".zst"))
    return place.with_suffix(".zst").read_bytes()


@pytest.mark.parametrize(
    ("head", "count", "said"),
    [
        (cpio.head("a", 0o100644, 0), 310_000, "more than 300000 members"),
        (cpio.head("TRAILER!!!", 0, 0), 1000, "more than 200 archives"),
    ],
    ids=["members", "archives"],
)
def test_a_bomb_costs_seconds_at_most(
    head: bytes, count: int, said: str, contract: Contract, toolbox: Toolbox
) -> None:
    """What unpacks to millions of members or archives is not looked into to its end."""
    found = _check(gzip.compress(head * count, 1), contract, toolbox)
    assert found.ok
    assert said in found.sentence


def test_zeros_are_not_even_kept(contract: Contract, toolbox: Toolbox) -> None:
    """An initrd of nothing but zeros takes a moment, and no place."""
    begin = time.process_time()
    (found,) = initramfs.check_release((bytes(1 << 20) for _ in range(200)), "initrd", "6.1", toolbox)
    assert found.ok
    assert time.process_time() - begin < 2.0


@pytest.mark.parametrize("sign", [b"x", b"y"])
def test_an_archive_that_ends_within_a_file_was_cut(sign: bytes, contract: Contract, toolbox: Toolbox) -> None:
    """One that is not compressed has no checksum that would tell: its sizes do. Without a trailer it is whole."""
    whole = _archive({"/init": b"x" * 700, "/bin/sh": b"y" * 700})
    assert "it ends within" in str(_check(whole[: whole.index(sign * 9) + 99], contract, toolbox))
    assert _check(whole[: whole.rindex(b"070701")], contract, toolbox).ok
