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
            if isinstance(modules, str) or not isinstance(modules, Iterable):
                raise ValueError(f"@pytest.mark.vm(modules=…) takes a list of names; not {modules!r}")
            said["modules"] = tuple(modules)
        if said.get("target") not in {None, *TARGETS}:
            raise ValueError(
                f"@pytest.mark.vm(target=…) takes {' or '.join(map(repr, TARGETS))}; not {said['target']!r}"
            )
        if (promises := said.get("promises")) is not None:
            words = (promises,) if isinstance(promises, str) else tuple(promises)  # type: ignore[arg-type]
            if wrong := [word for word in words if word not in _PROMISES]:
                raise ValueError(f"@pytest.mark.vm(promises=…) takes {', '.join(_PROMISES)}; not {wrong[0]!r}")
            said["promises"] = words
        return cls(**said)  # type: ignore[arg-type]

    @property
    def machine(self) -> "Needs":
        """What of it makes another machine; a target chooses whether the test runs at all."""
        return Needs(image=self.image, modules=self.modules, hardware=self.hardware)
