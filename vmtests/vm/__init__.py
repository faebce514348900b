"""A virtual machine as tests use it: a machine, its boot, its guest and its image, put together by a laboratory."""

from vmtests.boot.follow import Watch
from vmtests.image.image import Image
from vmtests.vm.factories import ColdVm, FreshVms
from vmtests.vm.laboratory import Kept, Laboratory, Start
from vmtests.vm.vm import BootError, Vm
from vmtests.vm.watch import Heartbeat

__all__ = ["BootError", "ColdVm", "FreshVms", "Heartbeat", "Image", "Kept", "Laboratory", "Start", "Vm", "Watch"]
