"""Images by the names that people give them."""

import gzip
import shutil
from pathlib import Path

import pytest

from vmtests.guest.login import Login
from vmtests.host.host import Host
from vmtests.host.tools import Toolbox
from vmtests.image.images import Images
from vmtests.image.source import Format
from vmtests.machine.hardware import Disk, Hardware
from vmtests.qemu.lab import Lab
from vmtests.testing.images import SmallImage


@pytest.fixture
def images(toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    """Images of a run whose scratch directory is its own."""
    host = Host()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(Host, "scratch", scratch)
    monkeypatch.setattr(Host, "toolbox", toolbox)
    return Images(None, host)


def pack(image: Path, into: Path, form: Format, toolbox: Toolbox) -> None:
    """Write a disk again, packed or converted."""
    if form is Format.RAW:
        with image.open("rb") as raw, gzip.open(into, "wb", 1) as packed:
            shutil.copyfileobj(raw, packed)
    else:
        toolbox.run("qemu-img", "convert", "-f", "raw", "-O", form.value, image, into)


@pytest.mark.parametrize("form", [Format.RAW, Format.VMDK], ids=["packed", "converted"])
def test_image_that_was_made_anew_under_its_name_is_another_one(
    form: Format, images: Images, patient: SmallImage, toolbox: Toolbox, tmp_path: Path
) -> None:
    """What is unpacked or converted once for a run is so once for each file that had the name."""
    place = tmp_path / "out.image"
    pack(patient.path, place, form, toolbox)
    first = images.find(str(place))
    assert images.find(str(place)).path == first.path
    toolbox.run("sfdisk", "-q", "--part-label", patient.path, "1", "another")
    place.unlink()
    pack(patient.path, place, form, toolbox)
    second = images.find(str(place))
    assert "another" in {volume.label for volume in second.inspection.volumes}
    assert "another" not in {volume.label for volume in images.find(str(first.path)).inspection.volumes}


def test_image_and_results_stay_where_they_are(
    patient: SmallImage, toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes the working directory afterwards, as tests do, has the machine that he named."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(patient.path.parent)
    (key := patient.path.with_name("key")).touch()
    named = Hardware(cdrom=Path("key"), disks=(Disk(image=Path(patient.path.name)),))
    login = Login.parse("root", Path("key"))
    with Lab(Path("results"), login=login) as lab:
        image = lab.image(patient.path.name)
        vm = lab.machine(image, named)
        monkeypatch.chdir(elsewhere)
        other = lab.machine(image, name="other")
    assert (patient.path, patient.path.with_name("results") / "other") == (other.image.path, other.results)
    assert (key, key, patient.path) == (login.key, vm.hardware.cdrom, vm.hardware.disks[0].image)
    assert [] == list(elsewhere.iterdir())


def test_path_and_its_name_are_one(images: Images, patient: SmallImage, tmp_path: Path) -> None:
    """An image is given as a `Path` or by its name, and so are results."""
    assert images.find(str(patient.path)).path == images.find(patient.path).path
    with Lab(str(tmp_path / "results")) as lab:  # type: ignore[arg-type]
        assert tmp_path / "results" == lab.results
