"""Tables of formats that are damaged, or lie."""

import os
import random
from pathlib import Path

import pytest

from vmtests.host.formats import DRIVERS, Format
from vmtests.host.tools import Toolbox
from vmtests.image import ends
from vmtests.testing.images import SmallImage


@pytest.mark.parametrize("form", list(ends._READERS))
def test_a_damaged_table_is_read_as_far_as_it_goes(form: Format, patient: SmallImage, toolbox: Toolbox) -> None:
    """Whatever its bytes are, and wherever it ends."""
    image = patient.path.with_suffix(f".{form}")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", DRIVERS[form], patient.path, image)
    assert ends.missing(image, form) is None
    head = image.read_bytes()[: 5 << 20]
    chance = random.Random(7)
    for _ in range(60):
        data = bytearray(head[: chance.choice((100, 512, 200_000, 300_000, len(head)))])
        for start in (0, 340, 192 << 10, 2 << 20, 3 << 20):
            for at in range(start, min(start + 200, len(data)), chance.randrange(1, 40)):
                data[at] = chance.choice((0, 255, chance.randrange(256)))
        image.write_bytes(data)
        found = ends.missing(image, form)
        assert found is None or found[0] == len(data)


@pytest.mark.parametrize("form", [*ends._READERS, Format.QCOW2])
def test_nothing_is_known_of_what_is_none(form: Format, tmp_path: Path) -> None:
    """A file of zeros."""
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    assert ends.missing(tmp_path / "x", form) is None


@pytest.mark.parametrize(
    ("form", "length"),
    [(Format.QCOW, 40), (Format.VDI, 450), (Format.VHD, 400), (Format.VHD, 530), (Format.PARALLELS, 39)],
    ids=str,
)
def test_what_ends_in_its_header_is_truncated(
    form: Format, length: int, patient: SmallImage, toolbox: Toolbox
) -> None:
    """QEMU takes the rest of the header for zeros, and the disk for a large one."""
    image = patient.path.with_suffix(f".{form}")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", DRIVERS[form], patient.path, image)
    os.truncate(image, length)
    found = ends.missing(image, form)
    assert found is not None
    assert found[1] > found[0] == length


@pytest.mark.parametrize(
    ("form", "place", "number"),
    [
        (Format.QCOW, 24, (1 << 48).to_bytes(8, "big")),
        (Format.VDI, 384, (1 << 28).to_bytes(4, "little")),
        (Format.VHD, 512 + 28, (1 << 28).to_bytes(4, "big")),
        (Format.PARALLELS, 32, (1 << 28).to_bytes(4, "little")),
        (Format.VMDK, 12, (1 << 40).to_bytes(8, "little")),
    ],
    ids=str,
)
def test_a_table_that_is_in_no_file_is_missing(
    form: Format, place: int, number: bytes, patient: SmallImage, toolbox: Toolbox
) -> None:
    """QEMU would take a gigabyte for it, and seconds, however small the file is."""
    image = patient.path.with_suffix(f".{form}")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", DRIVERS[form], patient.path, image)
    data = image.read_bytes()
    image.write_bytes(data[:place] + number + data[place + len(number) :])
    found = ends.missing(image, form)
    assert found is not None
    assert found[1] > found[0] == len(data)
