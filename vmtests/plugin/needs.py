"""What a test says of the machine that it needs: `@pytest.mark.vm(hardware=…, image=…)`."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pytest

from vmtests.plugin.options import TARGETS

if TYPE_CHECKING:  # it takes longer to import than pytest
    from vmtests.machine.hardware import Hardware

MARKER = "vm"
_PROMISES = ("store", "entry", "root", "grow", "partitions", "mounts", "units")
HELP = (
    "vm(*, image=None, modules=None, hardware=None, target=None, promises=None): the machine that a test needs: an "
    "image as --vm-image names it, modules of the reference image, a vmtests.Hardware, `qemu` or `gce` when it is for "
    "one of them only, and what the image's contract must promise for it; docs/pytest.md"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What was said; what was not is as the options have it."""

    image: str | None = None
    modules: tuple[str, ...] | None = None
    hardware: "Hardware | None" = None
    target: str | None = None
    promises: tuple[str, ...] = ()

    @classmethod
    def of(cls, markers: Iterable[pytest.Mark]) -> "Needs":
        """Return what a test's markers say, of which the closest come first; raises ValueError for what none says."""
        said: dict[str, object] = {}
        known = [field.name for field in fields(cls)]
        for marker in markers:
            if marker.args or not marker.kwargs.keys() <= set(known):
                wrong = [*map(repr, marker.args), *(f"{name}=" for name in marker.kwargs if name not in known)]
                takes = ", ".join(f"{name}=" for name in known)
                raise ValueError(f"@pytest.mark.vm takes {takes}; not {', '.join(wrong)}")
            said = {**marker.kwargs, **said}
        if (image := said.get("image")) is not None:
            said["image"] = str(image)
        if (modules := said.get("modules")) is not None:
            said["modules"] = _names("modules", modules)
        if (hardware := said.get("hardware")) is not None:
            from vmtests.machine.hardware import Hardware  # it is there: whoever names one has made it

            if not isinstance(hardware, Hardware):
                raise ValueError(f"@pytest.mark.vm(hardware=…) takes a vmtests.Hardware; not {hardware!r}")
        if said.get("target") not in (None, *TARGETS):  # no set: what was said may have no hash
            raise ValueError(
                f"@pytest.mark.vm(target=…) takes {' or '.join(map(repr, TARGETS))}; not {said['target']!r}"
            )
        if (promises := said.get("promises")) is not None:
            words = _names("promises", [promises] if isinstance(promises, str) else promises)
            if wrong := [word for word in words if word not in _PROMISES]:
                raise ValueError(f"@pytest.mark.vm(promises=…) takes {', '.join(_PROMISES)}; not {wrong[0]!r}")
            said["promises"] = words
        return cls(**said)  # type: ignore[arg-type]

    @property
    def machine(self) -> "Needs":
        """What of it makes another machine; a target chooses whether the test runs at all."""
        return Needs(image=self.image, modules=self.modules, hardware=self.hardware)


def _names(key: str, said: object) -> tuple[str, ...]:
    """Return a list of names as a tuple; raises ValueError for anything else."""
    if not isinstance(said, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in said):
        raise ValueError(f"@pytest.mark.vm({key}=…) takes a list of names; not {said!r}")
    return tuple(said)
