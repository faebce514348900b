"""The store is writable through an overlay: copy-up, whiteouts and opaque directories, the lower layer untouched.

Tests write as Nix does, and take away what they wrote: below a name of their own, and upperdir entries that hide
a file of the image are removed where they lie.
"""

import shlex
from collections.abc import Callable, Iterator

import pytest

from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.suite.mmap_writer import MMAP_WRITER
from vmtests.vm import Vm

pytestmark = pytest.mark.vm(promises="store")

Write = Callable[[str], Result]


@pytest.fixture
def upper(vm_contract: Contract) -> str:
    """The upperdir."""
    return vm_contract.store.upper


@pytest.fixture
def hidden(vm: Vm, vm_contract: Contract, lower_file: str) -> Iterator[str]:
    """A file of the image that a test may change or delete through the overlay; undone afterwards.

    It is in the lower layer only, so that whatever changes it has to copy it up: another one for each test. Changing
    layers under a mounted overlay is undefined (kernel, filesystems/overlayfs), so the test puts the content back
    through the overlay.
    """
    lower = f"{vm_contract.store.lower}/{lower_file}"
    before = vm.run(f"sha256sum < '{lower}'").check().stdout
    yield lower_file
    merged = f"{vm_contract.store.mount}/{lower_file}"
    writable = f"mount -o remount,bind,rw {vm_contract.store.mount}"
    script = f"{writable}; rm -rf '{merged}'; cp --preserve=all '{lower}' '{merged}'"
    vm.run(f"unshare --mount --propagation private sh -ec {shlex.quote(script)}").check()
    assert vm.run(f"sha256sum < '{lower}'").check().stdout == before
    assert vm.run(f"sha256sum < '{merged}'").check().stdout == before


@pytest.fixture
def made(as_nix: Write) -> Iterator[str]:
    """A name in the store for what a test makes; removed afterwards."""
    name = "vmtests-made"
    yield name
    as_nix(f"chmod -R u+w {name} 2>/dev/null || true; rm -rf {name}").check()


def test_overlay_has_exactly_the_contracts_directories(vm: Vm, vm_contract: Contract) -> None:
    """The mount below is an overlay of the contract's lowerdir, upperdir and workdir, as stage 1 saw them."""
    overlay = vm.mounts.at(vm_contract.store.mount)[0]
    assert overlay.fstype == "overlay"
    wanted = {f"{key}={value}" for key, value in vm_contract.store.overlay_options("/sysroot").items()}
    assert wanted == {option for option in overlay.super_options if option.split("=")[0].endswith("dir")}
    assert "rw" in overlay.options


def test_store_is_mounted_twice_with_the_bind_on_top(vm: Vm, vm_contract: Contract) -> None:
    """On top of the overlay lies a bind of itself with the contract's options, and nothing else."""
    mounts = vm.mounts.at(vm_contract.store.mount)
    assert len(mounts) == 2
    assert set(vm_contract.store.bind_options) <= set(mounts[1].options)
    assert mounts[0].super_options == mounts[1].super_options


def test_workdir_is_on_the_file_system_of_upperdir(vm: Vm, vm_contract: Contract) -> None:
    """workdir and upperdir are on the root file system, as overlayfs demands."""
    devices = vm.run(f"stat --format %d {vm_contract.store.upper} {vm_contract.store.work} /").check().lines
    assert len(set(devices)) == 1


def test_plain_write_fails(vm: Vm, vm_contract: Contract) -> None:
    """Who does not remount, root included, cannot write to the store."""
    result = vm.run(f"touch {vm_contract.store.mount}/vmtests")
    assert result.exit_code != 0
    assert "Read-only file system" in result.stderr


def test_write_as_nix_succeeds_and_stays_private(vm: Vm, as_nix: Write, made: str, vm_contract: Contract) -> None:
    """A write in a private, remounted namespace works, and the store of everybody else stays read-only."""
    as_nix(f"echo hello > {made}").check()
    assert vm.run(f"cat {vm_contract.store.mount}/{made}").check().stdout == "hello\n"
    assert vm.run(f"touch {vm_contract.store.mount}/{made}").exit_code != 0


def test_created_file_lands_in_upperdir_only(
    vm: Vm, as_nix: Write, made: str, vm_contract: Contract, upper: str
) -> None:
    """A new file lies in upperdir and not in the lower layer."""
    as_nix(f"echo new > {made}").check()
    assert vm.run(f"cat {upper}/{made}").check().stdout == "new\n"
    assert vm.run(f"test -e {vm_contract.store.lower}/{made}").exit_code == 1


def test_changed_file_is_copied_up(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract, upper: str) -> None:
    """Appending to a file of the image copies it up; the file in the lower layer stays as it was."""
    size = int(vm.run(f"stat --format %s '{vm_contract.store.lower}/{hidden}'").check().stdout)
    as_nix(f"echo more >> '{hidden}'").check()
    sizes = vm.run(f"stat --format %s '{vm_contract.store.lower}/{hidden}' '{upper}/{hidden}'").check().lines
    assert [size, size + len("more\n")] == [int(line) for line in sizes]


def test_changed_mode_is_copied_up(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract, upper: str) -> None:
    """Changing a file's mode copies it up; the mode in the lower layer stays as it was."""
    before = vm.run(f"stat --format %a '{vm_contract.store.lower}/{hidden}'").check().stdout
    as_nix(f"chmod 0640 '{hidden}'").check()
    assert vm.run(f"stat --format %a '{upper}/{hidden}'").check().stdout == "640\n"
    assert vm.run(f"stat --format %a '{vm_contract.store.lower}/{hidden}'").check().stdout == before


def test_deleted_file_leaves_a_whiteout(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract, upper: str) -> None:
    """Deleting a file of the image leaves a whiteout, a character device 0:0, and the file below."""
    as_nix(f"rm '{hidden}'").check()
    assert vm.run(f"test -e '{vm_contract.store.mount}/{hidden}'").exit_code == 1
    assert vm.run(f"stat --format '%F %t:%T' '{upper}/{hidden}'").check().stdout == "character special file 0:0\n"
    vm.run(f"test -f '{vm_contract.store.lower}/{hidden}'").check()


def test_recreated_file_replaces_its_whiteout(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract) -> None:
    """A file made again under a deleted name has the new content only."""
    as_nix(f"rm '{hidden}'; echo again > '{hidden}'").check()
    assert vm.run(f"cat '{vm_contract.store.mount}/{hidden}'").check().stdout == "again\n"


def test_directory_made_over_a_deleted_one_is_opaque(
    vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract, upper: str
) -> None:
    """A directory that replaces something of the image shows nothing of what was below it."""
    as_nix(f"rm '{hidden}'; mkdir '{hidden}'; touch '{hidden}/inside'").check()
    assert vm.run(f"ls -A '{vm_contract.store.mount}/{hidden}'").check().lines == ["inside"]
    value = vm.run(f"getfattr --absolute-names --only-values -n trusted.overlay.opaque '{upper}/{hidden}'").check()
    assert value.stdout == "y"


def test_renamed_directory_keeps_its_content(vm: Vm, as_nix: Write, made: str, vm_contract: Contract) -> None:
    """A directory that was made through the overlay can be renamed with all that is in it."""
    as_nix(f"mkdir -p {made}/a/b; echo deep > {made}/a/b/file; mv {made}/a {made}/c").check()
    assert vm.run(f"cat {vm_contract.store.mount}/{made}/c/b/file").check().stdout == "deep\n"
    assert vm.run(f"test -e {vm_contract.store.mount}/{made}/a").exit_code == 1


def test_directory_of_the_image_can_be_moved(
    vm: Vm, as_nix: Write, made: str, hidden: str, vm_contract: Contract
) -> None:
    """A copy of a directory of the image can be moved over another name, and both layers stay whole."""
    directory = hidden.rsplit("/", 1)[0]
    count = vm.run(f"ls -A '{vm_contract.store.lower}/{directory}' | wc -l").check().stdout
    as_nix(f"mkdir {made}; cp -r '{directory}' {made}/one; mv {made}/one {made}/two").check()
    assert vm.run(f"ls -A {vm_contract.store.mount}/{made}/two | wc -l").check().stdout == count
    assert vm.run(f"ls -A '{vm_contract.store.lower}/{directory}' | wc -l").check().stdout == count


def test_hard_link_shares_its_content(vm: Vm, as_nix: Write, made: str, vm_contract: Contract) -> None:
    """Two names of one file made through the overlay have one content and a link count of two."""
    as_nix(f"mkdir {made}; echo one > {made}/a; ln {made}/a {made}/b; echo two >> {made}/b").check()
    assert vm.run(f"cat {vm_contract.store.mount}/{made}/a").check().stdout == "one\ntwo\n"
    assert vm.run(f"stat --format %h {vm_contract.store.mount}/{made}/a").check().stdout == "2\n"


def test_extended_attribute_is_kept(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract) -> None:
    """An extended attribute set on a file of the image is kept by its copy in upperdir."""
    as_nix(f"setfattr -n user.vmtests -v kept '{hidden}'").check()
    shown = vm.run(
        f"getfattr --absolute-names --only-values -n user.vmtests '{vm_contract.store.mount}/{hidden}'"
    ).check()
    assert shown.stdout == "kept"
    below = vm.run(f"getfattr -n user.vmtests '{vm_contract.store.lower}/{hidden}'")
    assert below.exit_code != 0


def test_mapped_write_reaches_upperdir(vm: Vm, as_nix: Write, hidden: str, vm_contract: Contract, upper: str) -> None:
    """A write through a shared memory mapping of a file of the image ends in upperdir, not below."""
    before = vm.run(f"head --bytes 1 '{vm_contract.store.lower}/{hidden}' | od -An -tx1").check().stdout
    vm.ssh.put(MMAP_WRITER, "/run/mmap-writer", 0o755)
    as_nix(f"/run/mmap-writer '{hidden}'").check()
    assert vm.run(f"head --bytes 1 '{upper}/{hidden}'").check().stdout == "!"
    assert vm.run(f"head --bytes 1 '{vm_contract.store.lower}/{hidden}' | od -An -tx1").check().stdout == before


def test_large_file_survives_the_page_cache(vm: Vm, as_nix: Write, made: str, vm_contract: Contract) -> None:
    """A file of 48 MiB written through the overlay reads back the same from the disk."""
    as_nix(f"dd if=/dev/urandom of={made} bs=1M count=48 conv=fsync status=none").check()
    path = f"{vm_contract.store.mount}/{made}"
    first = vm.run(f"cksum < {path}").check().stdout
    again = vm.run(f"echo 3 > /proc/sys/vm/drop_caches; cksum < {path}").check().stdout
    assert first == again
    assert int(first.split()[1]) == 48 << 20


def test_nix_adds_and_deletes_a_path(vm: Vm, upper: str) -> None:
    """Nix adds a path to the store through the overlay and deletes it again, on the read-only bind as it is."""
    path = vm.run("echo vmtests > /run/added && nix-store --add /run/added").check().stdout.strip()
    vm.run(f"nix-store --check-validity {path}").check()
    vm.run(f"test -f {upper}/{path.rsplit('/', 1)[-1]}").check()
    vm.run(f"nix-store --delete {path}").check()
    assert vm.run(f"test -e {path}").exit_code == 1


def test_full_upper_gives_enospc_and_leaves_the_store_readable(
    vm: Vm, as_nix: Write, made: str, vm_contract: Contract, lower_file: str
) -> None:
    """When the root is full a write fails with ENOSPC, the store stays readable, and room makes it writable."""
    before = vm.run(f"cksum < '{vm_contract.store.mount}/{lower_file}'").check().stdout
    try:
        vm.run("fallocate -l $(($(stat -f --format '%a*%S' /))) /fill; dd if=/dev/zero of=/fill2 bs=64k status=none")
        full = as_nix(f"dd if=/dev/zero of={made} bs=64k count=16 conv=fsync status=none")
        assert full.exit_code != 0
        assert "No space left on device" in full.stderr
        assert vm.run(f"cksum < '{vm_contract.store.mount}/{lower_file}'").check().stdout == before
    finally:
        vm.run("rm -f /fill /fill2; sync").check()
    as_nix(f"dd if=/dev/zero of={made} bs=64k count=16 conv=fsync status=none").check()
