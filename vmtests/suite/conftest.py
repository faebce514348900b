"""What the suite's tests share."""

import shlex
from collections.abc import Callable

import pytest

from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.lab import Vm


@pytest.fixture
def as_nix(vm: Vm, contract: Contract) -> Callable[[str], Result]:
    """Run a script as Nix writes to the store: in a mount namespace of its own, remounted writable there.

    The script's working directory is the store (Nix: `LocalStore::makeStoreWritable`).
    """
    return store_writer(vm, contract)


def store_writer(vm: Vm, contract: Contract) -> Callable[[str], Result]:
    """Return a function that runs a script in `vm` with the store writable for that script alone."""

    def write(script: str) -> Result:
        store = contract.store.mount
        inner = f"set -e; mount -o remount,bind,rw {store}; cd {store}; {script}"
        return vm.run(f"unshare --mount --propagation private sh -c {shlex.quote(inner)}")

    return write


@pytest.fixture
def lower_file(vm: Vm, contract: Contract) -> str:
    """A file of the image's store, relative to it: the text file that every system has."""
    found = vm.run(
        f"cd {contract.store.lower} && find . -path '*/share/common-licenses/*' -type f -size +1k | sort | head -n 1"
    )
    name = found.check().stdout.strip().removeprefix("./")
    if not name:
        found = vm.run(f"cd {contract.store.lower} && find . -type f -size +1k -size -64k | sort | head -n 1")
        name = found.check().stdout.strip().removeprefix("./")
    return name
