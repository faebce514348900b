"""A small good image, built once by the project's own builder, and copies of it to break."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.host import tools
from vmtests.host.tools import Toolbox
from vmtests.image.assemble import assemble
from vmtests.image.spec import ImageSpec, StoreSpec

from .samples import ENTRY, STORE_PATH, Patient, kernel, program, sparse_copy


@pytest.fixture(scope="session")
def toolbox() -> Toolbox:
    """The tools of this host."""
    return tools.find()


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The project's contract."""
    return contracts.default()


@pytest.fixture(scope="session")
def good_image(tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox) -> Path:
    """A raw disk that obeys the contract; boot loader and kernel are no more than their headers."""
    work = tmp_path_factory.mktemp("image")
    boot = contract.boot
    contents = {
        boot.loader: program(),
        boot.loader_config: b"timeout 0\n",
        boot.entry: ENTRY.encode(),
        boot.kernel: kernel(),
        boot.initrd: gzip.compress(b"070701"),
    }
    esp = {}
    for index, (target, content) in enumerate(contents.items()):
        esp[target] = work / f"esp-{index}"
        esp[target].write_bytes(content)
    store = work / "store"
    (store / STORE_PATH.rpartition("/")[2]).mkdir(parents=True)
    (store / STORE_PATH.rpartition("/")[2] / "init").write_text("#!/bin/sh\n")
    spec = ImageSpec(version=1, name="test", esp=esp, store=StoreSpec(directory=store, paths=(STORE_PATH,)))
    disk = work / "disk.raw"
    assemble(spec, disk, toolbox)
    return disk


@pytest.fixture
def patient(good_image: Path, tmp_path: Path, contract: Contract, toolbox: Toolbox) -> Patient:
    """A copy of the good image, to be broken."""
    sparse_copy(good_image, tmp_path / "disk.raw")
    return Patient(tmp_path / "disk.raw", contract, toolbox)


@pytest.fixture(scope="session")
def partition_bytes(good_image: Path, contract: Contract, toolbox: Toolbox) -> Callable[[int], bytes]:
    """Gives the first 16 KiB of a partition of the good image, by its number."""
    whole = Patient(good_image, contract, toolbox)
    return lambda number: whole.read(whole.start(number), 1 << 14)
