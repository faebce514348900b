"""Small images, to be broken, for tests of rules and contracts."""

import dataclasses
from pathlib import Path

from vmtests import contract as contracts
from vmtests.image.inspect import inspect
from vmtests.testing import small_image


def test_small_image_obeys_the_contract_that_is_given(tmp_path: Path) -> None:
    """A partition more in the contract is a partition more on the disk, and nothing else names it."""
    default = contracts.default()
    linux = default.store_partition
    data = dataclasses.replace(
        default.root, name="data", label="data", type=linux.type, type_uuid=linux.type_uuid, size="16M", grow=False
    )
    contract = dataclasses.replace(default, partition=(*default.partition[:2], data, *default.partition[2:]))
    image = small_image(tmp_path, contract)
    assert inspect(image.path, contract, image.toolbox).breaches == ()
    assert image.start(3) < image.start(4)
