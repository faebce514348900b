"""The laboratory of each target, as the options want it.

Another cloud is another function here, and a name in `options.TARGETS`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypedDict

import pytest

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.gce.lab import DEFAULT_MACHINE, SUITE_LIFETIME, GceLab
from vmtests.gce.settings import Settings, count
from vmtests.guest.login import Login
from vmtests.guest.seed import Seed
from vmtests.plugin.options import machine_types
from vmtests.plugin.run import Run
from vmtests.qemu.lab import Lab
from vmtests.sizes import parse_seconds
from vmtests.vm import Laboratory


class _Common(TypedDict):
    """What every laboratory is told."""

    run: str
    timeout: float | None
    contract: Contract | None


def _common(config: pytest.Config) -> _Common:
    limit, file = config.getoption("vm_timeout"), config.getoption("vm_contract")
    return _Common(
        run=getattr(config, "workerinput", {}).get("testrunuid", ""),
        timeout=None if limit is None else parse_seconds(limit),
        contract=None if file is None else contracts.load(Path(file)),
    )


@contextlib.contextmanager
def _qemu(config: pytest.Config, run: Run, machine_type: str) -> Iterator[Laboratory]:
    del machine_type
    option = config.getoption
    with run.uncaptured():
        common = _common(config)
        who, key = option("vm_login"), option("vm_login_key")
        login = Login.parse(who or "root", None if key is None else Path(key)) if who or key else None
    seed = Seed(option("vm_seed"))
    with Lab(run.results, accelerator=option("vm_accel"), login=login, seed=seed, **common) as lab:
        yield lab


@contextlib.contextmanager
def _gce(config: pytest.Config, run: Run, machine_type: str) -> Iterator[Laboratory]:
    option = config.getoption
    with run.uncaptured():
        common = _common(config)
        if option("vm_from") is not None:
            raise InputError("--vm-from needs machines that can be kept: --vm-target=qemu")
        settings = Settings.find(
            project=option("gce_project"),
            zones=option("gce_zone"),
            bucket=option("gce_bucket"),
            endpoint=option("gce_endpoint"),
            network=option("gce_network"),
            subnetwork=option("gce_subnetwork"),
            internal=option("gce_internal"),
            spot=option("gce_spot"),
            disk_type=option("gce_disk_type"),
            os_login=option("gce_os_login"),
            limit=count(option("gce_instances")),
        )
    directory = run.results / machine_type if len(machine_types(config)) > 1 else run.results
    machine = machine_type or DEFAULT_MACHINE
    with GceLab(directory, settings, machine=machine, lifetime=SUITE_LIFETIME, **common) as lab:
        yield lab


LABORATORIES: Mapping[str, Callable[[pytest.Config, Run, str], AbstractContextManager[Laboratory]]] = {
    "qemu": _qemu,
    "gce": _gce,
}
"""By the name of the target, given the machine type that a test runs on."""
