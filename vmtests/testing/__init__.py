"""For tests of what is built upon vmtests: they take milliseconds, and no machine boots.

`FakeVm` is a machine whose console was recorded before, and which answers the commands that it was told; `replay`
returns the verdict on a recorded console; `ManualClock` goes only when told; `small_image` builds a disk that obeys
the contract, to be broken and inspected.

>>> from vmtests.testing import FakeVm
>>> def kernel_is_new(vm):
...     return not vm.run("uname -r").check().stdout.startswith("5.")
>>> with FakeVm(answers={"uname -r": "6.12.1"}) as vm:
...     vm.wait_ready().ready, kernel_is_new(vm)
(True, True)
"""

from vmtests.testing.clock import ManualClock
from vmtests.testing.consoles import Recording, recording, recordings, replay
from vmtests.testing.images import SmallImage, small_image
from vmtests.testing.vm import FakeVm

__all__ = ["FakeVm", "ManualClock", "Recording", "SmallImage", "recording", "recordings", "replay", "small_image"]
