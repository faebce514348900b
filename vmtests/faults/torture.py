"""The power is cut at many moments, and each next boot has to get ready with what had been synced.

Each moment is a machine of its own: one that goes on from where another was kept (in the middle of its first boot, or
ready), runs for a while, and is killed. What the guest said of itself decides what has to be there: a line on the
console is printed after the sync that it tells of. A QEMU that is killed loses what its guest had not flushed from its
memory, and what QEMU itself had not: the tables of the disk's qcow2 file.
"""

import contextlib
import random
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum

from vmtests.boot.stages import Stage
from vmtests.errors import GuestError, Owner, VmtestsError
from vmtests.qemu.lab import Lab
from vmtests.qemu.snapshots import Snapshot
from vmtests.qemu.vm import QemuVm
from vmtests.vm import BootError, Image

_LOOK_SECONDS = 0.02
_BEGIN_SECONDS = 30.0
_LATE = 1.2
"""A host is not always as fast: moments go on for so many times as long as things took."""
_DIRECTORY = "vmtests-torture"
_SAID = re.compile(r"vmtests-torture synced ([0-9]{1,9})")

# Each round makes a directory with a file that was written over and one that replaces another by its name, and a path
# of Nix where there is one; it is told when the file system has all of it. The content says which round it is. Before
# the first it tells of none: it can write, and be heard.
_WRITER = """\
d={store}/{directory}; mkdir -p $d || exit 1; i=0
printf '\\r\\nvmtests-torture synced 0\\r\\n' > /dev/{console}
while [ $i -lt 100000 ]; do
  i=$((i+1)); mkdir $d/$i
  head -c 70000 /dev/zero | tr '\\0' $((i % 10)) > $d/$i/data; echo $i > $d/$i/new; mv $d/$i/new $d/$i/name
  if command -v nix-store >/dev/null; then echo $i > /tmp/torture-$i; nix-store --add /tmp/torture-$i > $d/$i/path; fi
  sync; printf '\\r\\nvmtests-torture synced %d\\r\\n' $i > /dev/{console}
done
"""

# Says the first round of those that were told of which is not as it was written.
_READER = """\
d={store}/{directory}; i=0
while [ $i -lt {rounds} ]; do
  i=$((i+1))
  [ "$(cat $d/$i/name)" = $i ] || {{ echo "$i: name"; exit 1; }}
  [ "$(tr -d $((i % 10)) < $d/$i/data | wc -c)-$(wc -c < $d/$i/data)" = 0-70000 ] || {{ echo "$i: data"; exit 1; }}
  [ ! -s $d/$i/path ] || nix-store --check-validity $(cat $d/$i/path) || {{ echo "$i: not valid in Nix"; exit 1; }}
  [ ! -s $d/$i/path ] || [ "$(cat $(cat $d/$i/path))" = $i ] || {{ echo "$i: content of the Nix path"; exit 1; }}
done
mkdir {store}/{directory}-after && rm -r {store}/{directory}-after || exit 1
command -v nix-store >/dev/null || exit 0
echo after > /tmp/torture-after && nix-store --add /tmp/torture-after >/dev/null
"""


class Scene(StrEnum):
    """What the guest does when the power is cut."""

    FIRST_BOOT = "first boot"
    STORE_WRITE = "store write"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the power is cut: after which `part` (0 to 1) of the time that the scene takes."""

    number: int
    scene: Scene
    part: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: after how many seconds that was (`cut`), where the boot was (empty where the guest was ready),
    how many rounds had been synced, how many seconds the next boot took, and why it is not as it has to be; nothing
    where it is.
    """

    moment: Moment
    cut: float
    stage: str
    synced: int
    seconds: float
    failure: str
    unknown: bool = False
    """Whether nothing can be told of the image, because the host was at fault."""

    @property
    def right(self) -> bool:
        """Whether the next boot got ready with all that had been synced."""
        return not self.failure

    def to_json(self) -> dict[str, object]:
        """Return it as `vmtests torture --json` prints it."""
        return {
            "number": self.moment.number,
            "scene": str(self.moment.scene),
            "cut_after_s": round(self.cut, 3),
            "stage": self.stage or None,
            "synced": self.synced,
            "next_boot_s": round(self.seconds, 1),
            "right": self.right,
            "unknown": self.unknown,
            "failure": self.failure or None,
        }


def moments(count: int, seed: int, scenes: Sequence[Scene] = tuple(Scene)) -> list[Moment]:
    """Return `count` moments, spread over what is done in `scenes`."""
    choose = random.Random(seed)  # noqa: S311 - to be had again
    each = {scene: len(range(number, count, len(scenes))) for number, scene in enumerate(scenes)}
    found = []
    for number in range(count):
        scene = scenes[number % len(scenes)]
        # One in each part of the time, so that none is left out, and nowhere the same.
        part = (number // len(scenes) + choose.random()) / each[scene]
        found.append(Moment(number=number + 1, scene=scene, part=part))
    return found


def spans(starts: Mapping[Stage, float]) -> dict[Scene, float]:
    """Return the seconds that each scene takes here, from the `starts` of the stages of a boot that got ready."""
    ready = starts[Stage.READY]
    return {
        Scene.FIRST_BOOT: _LATE * (ready - starts[Stage.INITRD]),  # it goes on from where the initrd begins
        Scene.STORE_WRITE: ready / 2,
        Scene.REBOOT: _LATE * ready,
    }


class Torture:
    """Cuts the power of machines with one image; results of those that went wrong are kept below `torture-N`."""

    def __init__(self, image: Image, lab: Lab) -> None:
        self._image = image
        self._lab = lab
        self._ending = threading.Event()
        # Makes what is kept, one after the other; what comes after finds it.
        self._turn = threading.Lock()
        self._machines: set[QemuVm] = set()
        self._spans: dict[Scene, float] = {}

    def run(self, wanted: Sequence[Moment], *, jobs: int = 1) -> Iterator[Outcome]:
        """Run moments, `jobs` at a time, and give each outcome as it comes; raises HostError."""
        with (
            self._lab.start(self._image, name="torture-ready") as start,
            ThreadPoolExecutor(jobs) as pool,
        ):
            snapshot = start.wait()
            self._spans = spans(start.vm.timeline.starts)
            if start.vm.qemu.alive:
                start.vm.power_cut()
            futures: list[Future[Outcome]] = []
            try:
                futures.extend(pool.submit(self._one, moment, snapshot) for moment in wanted)
                for future in as_completed(futures):
                    yield future.result()
            finally:
                self._ending.set()
                for future in futures:
                    future.cancel()
                # The pool waits for its threads, and they for a verdict: a machine that is gone has one.
                for vm in tuple(self._machines):
                    with contextlib.suppress(VmtestsError):
                        vm.qemu.signal(signal.SIGKILL)

    def _one(self, moment: Moment, snapshot: Snapshot) -> Outcome:
        try:
            return self._try(moment, snapshot)
        except (BootError, GuestError) as error:
            # It never came to the moment: of what a cut does nothing is known, and the others are still to come.
            return Outcome(
                moment=moment, cut=0.0, stage="", synced=0, seconds=0.0, failure=error.message, unknown=True
            )

    def _try(self, moment: Moment, snapshot: Snapshot) -> Outcome:
        name = f"torture-{moment.number}"
        if moment.scene is Scene.FIRST_BOOT:
            with self._in_first_boot(name) as vm:
                return self._cut(moment, vm)
        with self._lab.fork(self._image, snapshot, name=name) as vm:
            if moment.scene is Scene.STORE_WRITE:
                self._write(vm)
            else:
                vm.begin_reboot()
            return self._cut(moment, vm)

    @contextlib.contextmanager
    def _in_first_boot(self, name: str) -> Iterator[QemuVm]:
        with contextlib.ExitStack() as stack:
            with self._turn:
                vm = stack.enter_context(self._lab.rewind(self._image, Stage.INITRD, name=name))
            yield vm

    def _write(self, vm: QemuVm) -> None:
        console = vm.image.contract.boot.console
        script = _WRITER.format(store=_store(vm), directory=_DIRECTORY, console=console)
        vm.run(f"setsid {_in_store(vm, script)} >/dev/null 2>/dev/{console} </dev/null &").check()
        end = time.monotonic() + _BEGIN_SECONDS * vm.scale
        while _synced(vm) is None and not self._ending.wait(_LOOK_SECONDS):
            if time.monotonic() > end:
                raise GuestError(
                    f"the guest does not write to {_store(vm)}, or does not tell on {console}",
                    hint=f"{vm.results / 'console.log'} may say why; it needs unshare(1), mount(8), setsid(1)",
                )

    def _cut(self, moment: Moment, vm: QemuVm) -> Outcome:
        cut = moment.part * self._spans[moment.scene]
        self._wait(cut)
        booting = vm.verdict is None
        stage = str(vm.follower.stage) if booting else ""
        if vm.qemu.alive:
            vm.power_cut()
        synced = _synced(vm) or 0
        began = time.monotonic()
        failure, unknown = "", False
        self._machines.add(vm)
        try:
            if not self._ending.is_set():
                vm.power_on()
                failure = self._look(vm, synced)
        except (BootError, GuestError) as error:
            failure, unknown = error.message, error.owner is not Owner.IMAGE
        finally:
            self._machines.discard(vm)
        seconds = time.monotonic() - began
        return Outcome(
            moment=moment, cut=cut, stage=stage, synced=synced, seconds=seconds, failure=failure, unknown=unknown
        )

    def _look(self, vm: QemuVm, synced: int) -> str:
        """Return what is not as it has to be; nothing where all is well."""
        script = _READER.format(store=_store(vm), directory=_DIRECTORY, rounds=synced)
        found = vm.run(_in_store(vm, script), 600.0)
        if found.exit_code == 0:
            return ""
        return f"what was synced is not there: {(found.stdout.strip() or found.stderr.strip())[-200:]}"

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._ending.wait(min(left, _LOOK_SECONDS)):
            pass


def _synced(vm: QemuVm) -> int | None:
    """Return how many rounds the guest has told of; None before it begins."""
    return max((int(match[1]) for line in vm.console if (match := _SAID.search(line.text))), default=None)


def _store(vm: QemuVm) -> str:
    return vm.image.contract.store.mount or "/var"


def _in_store(vm: QemuVm, script: str) -> str:
    """Return the command that runs `script` as Nix writes to the store: in a mount namespace where it is writable."""
    inner = f"PATH=$PATH:/run/current-system/sw/bin; {script}"
    if mount := vm.image.contract.store.mount:
        whole = shlex.quote(f"mount -o remount,bind,rw {mount} || exit 1; {inner}")
        return f"unshare --mount --propagation private sh -c {whole}"
    return f"sh -c {shlex.quote(inner)}"
