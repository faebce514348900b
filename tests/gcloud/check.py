"""The unmodified gcloud against the emulator, with real machines: `make gcloud-check`.

    python -m tests.gcloud.check                     about twelve minutes on two cores without KVM
    python -m tests.gcloud.check --archive A.tar.gz  another image than the reference
    python -m tests.gcloud.check --only boot,kill    some parts of it

Every command has to end as it should, and what it says is looked at. Exit status 0 when all did, 1 when one did not,
2 when there is no gcloud. gcloud's own configuration is not touched.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gcloud.emulated import Emulated
from vmtests.boot.budgets import Budgets
from vmtests.boot.follow import Follower
from vmtests.emulator.serialport import LIMIT
from vmtests.errors import VmtestsError
from vmtests.gce import guest
from vmtests.gce.guest import HostKeys
from vmtests.guest.keys import Key
from vmtests.guest.ssh import Ssh
from vmtests.host.host import Host
from vmtests.sizes import MIB

ZONE = "us-central1-a"
FIRST = "BdsDxe: starting Boot"
"""What the firmware says once in each boot; an image may keep its kernel quiet."""
UPLOAD = 1536 * MIB
"""Bytes that are uploaded to measure the emulator's memory."""
PEAK_MIB = 100.0
"""The memory that the emulator may have at most, whatever is uploaded."""
METADATA = (
    "exec 3<>/dev/tcp/metadata.google.internal/80; "
    r"printf 'GET /computeMetadata/v1/instance/name HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n' >&3; cat <&3"
)
ATTRIBUTE = (
    "exec 3<>/dev/tcp/metadata.google.internal/80; "
    r"printf 'PUT /computeMetadata/v1/instance/guest-attributes/vmtests/word HTTP/1.0\r\nMetadata-Flavor: Google\r\n"
    r"Content-Length: 19\r\n\r\nwhat the guest says' >&3; cat <&3"
)
_ENVIRONMENT = {
    "CLOUDSDK_COMPUTE_ZONE": ZONE,
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
    "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
    "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
    "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "true",
}
_COMMAND_SECONDS = 300.0
_TAIL_SECONDS = 10.0
_PREEMPTION_SECONDS = 60.0  # a guest has thirty seconds to end in order
_LOADER_SECONDS = 30.0  # with KVM; from power-on or reset to the boot loader
_POLL = 1.0


class WrongError(Exception):
    """Something is not as it has to be."""


class Check:
    """One emulator, one gcloud, and the parts of the check in their order."""

    def __init__(self, emulated: Emulated, archive: Path, directory: Path, scale: float) -> None:
        self.emulated = emulated
        self.archive = archive
        self.directory = directory
        self.scale = scale
        self.key = Key.generate(directory)
        own = {**emulated.environment, **_ENVIRONMENT, "CLOUDSDK_CONFIG": str(directory / "gcloud")}
        self.environment = {**os.environ, **own}
        self.project = own["CLOUDSDK_CORE_PROJECT"]
        self.token = f"vmtests-ready-{secrets.token_hex(8)}"
        self.host_keys = HostKeys(self.token)
        self.verdict: dict[str, Any] = {}

    def gcloud(self, *words: str, says: str = "", fails: bool = False) -> str:
        """Run a command, which has to end as it should and to say something; return its output."""
        print(f"$ gcloud {' '.join(words)}", flush=True)
        begin = time.monotonic()
        done = subprocess.run(
            ["gcloud", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
        )
        said = done.stdout + done.stderr
        print(f"  exit {done.returncode} in {time.monotonic() - begin:.1f} s", flush=True)
        if bool(done.returncode) is not fails or says not in said:
            raise WrongError(f"gcloud {' '.join(words)}: {says!r} is expected:\n{said[-3000:]}")
        return done.stdout

    def instance(self, command: str, *words: str, says: str = "") -> str:
        """Run a command on instances."""
        return self.gcloud("compute", "instances", command, *words, says=says)

    def link(self, name: str) -> str:
        """Return the path of an instance in the API."""
        return f"/compute/v1/projects/{self.project}/zones/{ZONE}/instances/{name}"

    def create(self, *names: str) -> None:
        """Make instances."""
        values = guest.metadata(self.key.public, self.token)
        script = self.directory / "startup-script"
        script.write_text(values.pop("startup-script"))
        metadata = (
            f"--metadata={','.join(f'{key}={value}' for key, value in values.items())}",
            f"--metadata-from-file=startup-script={script}",
        )
        limits = ("--max-run-duration=2h", "--instance-termination-action=DELETE")
        order = ("--image=img", "--machine-type=e2-small", "--enable-display-device", *limits)
        self.instance("create", *names, *order, *metadata, says="RUNNING")

    # The parts.

    def image(self) -> None:
        """An image is made of an archive in a bucket."""
        self.gcloud("storage", "buckets", "create", "gs://bkt", says="Creating gs://bkt/")
        self.gcloud("storage", "cp", str(self.archive), "gs://bkt/image.tar.gz")
        self.gcloud("storage", "ls", "gs://bkt", says="gs://bkt/image.tar.gz")
        source, features = "--source-uri=gs://bkt/image.tar.gz", "--guest-os-features=UEFI_COMPATIBLE"
        self.gcloud("compute", "images", "create", "img", source, features, says="READY")

    def boot(self) -> None:
        """An instance boots; its console is followed from the first byte to the verdict."""
        begin = time.monotonic()
        self.create("a")
        with Tail(self, "a") as tail:
            self.verdict = self.follow("a", begin)
        tail.check(FIRST)
        self.instance("get-serial-port-output", "a", says=FIRST)
        picture = self.directory / "a.png"
        self.instance("get-screenshot", "a", f"--destination={picture}")
        if not picture.read_bytes().startswith(b"\x89PNG"):
            raise WrongError("the screenshot is no PNG")
        self.instance("add-metadata", "a", "--metadata=k=v", says="Updated")
        self.instance("describe", "a", "--format=value(metadata.items)", says="'k', 'value': 'v'")

    def follow(self, name: str, begin: float) -> dict[str, Any]:
        """Follow the console of an instance from its first byte to the verdict, as `vmtests boot` prints it."""
        results = self.directory / f"console-{name}"
        results.mkdir(exist_ok=True)
        budgets = Budgets(scale=self.scale)
        with Follower(results, budgets=budgets, power_on=begin, ready_token=self.token) as follower:
            position = 0
            while follower.verdict is None:
                output = self.output(name, position)
                if int(output["start"]) != position:
                    raise WrongError(f"{int(output['start']) - position} bytes of the console are lost")
                follower.feed(data := output["contents"].encode())
                self.host_keys.feed(data)
                position = int(output["next"])
                time.sleep(_POLL)
            verdict = follower.verdict.to_json()
        print(f"  {name} is {verdict['verdict']}: {verdict['sentence']}", flush=True)
        return verdict

    def ssh(self) -> None:
        """The guest's own agent has let the key in and run the startup script, which told the host keys."""
        card = self.emulated.ask("GET", self.link("a"))["networkInterfaces"][0]
        port = self.emulated.ask("GET", "/emulator/v1/about")["sshPort"]
        with Ssh(card["accessConfigs"][0]["natIP"], port, self.key, self.host_keys.lines) as ssh:
            ssh.connect(60.0 * self.scale)
            answer = ssh.run("bash -s", stdin=METADATA.encode()).check()
            print(f"  the metadata server says {answer.lines[-1]!r}", flush=True)
            if answer.lines[-1] != "a":
                raise WrongError(f"the metadata server says {answer}")
            addresses = ssh.run("ip -4 -o addr show; cat /sys/class/net/e*/mtu").check().lines
            if "1460" not in addresses or card["networkIP"] not in str(addresses):
                raise WrongError(f"the guest's network is {addresses}")
            ssh.run("bash -s", stdin=ATTRIBUTE.encode()).check()
        self.instance("get-guest-attributes", "a", "--query-path=vmtests/", says="what the guest says")

    def power(self) -> None:
        """An instance is stopped, started and reset; each time it boots."""
        self.instance("stop", "a")
        self.instance("describe", "a", "--format=value(status)", says="TERMINATED")
        self.instance("start", "a")
        self.wait_boots("a", 1)
        self.instance("reset", "a")
        self.wait_boots("a", 2)
        self.instance("describe", "a", "--format=value(status)", says="RUNNING")

    def wait_boots(self, name: str, count: int) -> None:
        """Wait until the firmware has started the boot loader so often since the instance was started."""
        end = time.monotonic() + _LOADER_SECONDS * self.scale
        while (seen := self.output(name, 0)["contents"].count(FIRST)) < count:
            if time.monotonic() > end:
                raise WrongError(f"{name} has booted {seen} times, not {count}")
            time.sleep(_POLL)
        print(f"  {name} has booted {seen} times", flush=True)

    def output(self, name: str, start: int) -> dict[str, Any]:
        """Return the output of the first serial port, as the API gives it."""
        found: dict[str, Any] = self.emulated.ask("GET", f"{self.link(name)}/serialPort?start={start}")
        return found

    def faults(self) -> None:
        """What is broken on purpose is told by gcloud in the words of Compute Engine, and nothing is left of it."""
        for fault, says in (
            ({"kind": "stockout", "zone": ZONE}, "ZONE_RESOURCE_POOL_EXHAUSTED"),
            ({"kind": "quota", "metric": "CPUS"}, "Quota 'CPUS' exceeded"),
            ({"kind": "operation-error", "code": "INTERNAL_ERROR"}, "Internal error. Please try again"),
            ({"kind": "forbidden", "method": "POST", "path": "/instances"}, "compute.instances.create"),
            ({"kind": "rate-limit", "method": "POST", "path": "/instances"}, "Quota exceeded for quota metric"),
        ):
            self.emulated.ask("POST", "/emulator/v1/faults", {**fault, "count": 1})
            self.gcloud("compute", "instances", "create", "c", "--image=img", says=says, fails=True)
        position = int(self.output("a", 0)["next"])
        self.emulated.ask("POST", "/emulator/v1/instances/a/wrapSerial", {})
        output = self.output("a", position)
        lost, kept = int(output["start"]) - position, int(output["next"]) - int(output["start"])
        print(f"  of the serial port {kept} bytes are kept, {lost} are lost", flush=True)
        if lost <= 0 or kept != LIMIT:
            raise WrongError("the serial port is not a megabyte, or hides a gap")
        self.instance("get-serial-port-output", "a", "--start=1", says="Some serial port output was lost")
        # Preempted, it is deleted, as its termination action says; and what failed has left neither instance nor disk.
        self.emulated.ask("POST", "/emulator/v1/instances/a/preempt", {})
        end = time.monotonic() + _PREEMPTION_SECONDS
        while names := self.gcloud("compute", "instances", "list", "--format=value(name)").split():
            if names != ["a"] or time.monotonic() > end:
                raise WrongError(f"there are instances left: {names}")
        self.gcloud("compute", "disks", "list", says="Listed 0 items")

    def compare(self) -> None:
        """The same image in `vmtests boot` goes through the same stages to the same verdict."""
        verdict = self.verdict
        print(f"$ vmtests boot {self.archive}", flush=True)
        vmtests = str(Path(sys.executable).with_name("vmtests"))
        command = [vmtests, "boot", str(self.archive), "--json", "--quiet", "--results", str(self.directory / "boot")]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode not in {0, 1}:
            raise WrongError(done.stderr[-3000:])
        other = json.loads(done.stdout)
        for what in ("verdict", "stage", "cause", "owner"):
            print(f"  {what}: {verdict[what]} and {other[what]}", flush=True)
            if verdict[what] != other[what]:
                raise WrongError(f"{what}: the emulator has {verdict}, vmtests boot has {other}")
        print(f"  stages: {list(verdict['seconds'])} and {list(other['seconds'])}", flush=True)
        if list(verdict["seconds"]) != list(other["seconds"]):
            raise WrongError("the stages are not the same")

    def upload(self) -> None:
        """A large upload goes through the emulator, and not into its memory."""
        large = self.directory / "large"
        with large.open("wb") as file:
            file.truncate(UPLOAD)
        for composite in ("true", "false"):
            self.environment["CLOUDSDK_STORAGE_PARALLEL_COMPOSITE_UPLOAD_ENABLED"] = composite
            self.gcloud("storage", "cp", str(large), f"gs://bkt/{composite}")
            self.gcloud("storage", "ls", "-l", f"gs://bkt/{composite}", says=str(UPLOAD))
            self.gcloud("storage", "rm", f"gs://bkt/{composite}")
        peak = self.emulated.peak_mib
        print(f"  the emulator has had {peak:.0f} MiB at most", flush=True)
        if peak > PEAK_MIB:
            raise WrongError(f"{peak:.0f} MiB are more than {PEAK_MIB:.0f}")

    def delete(self) -> None:
        """Everything is deleted, and gone."""
        # Two are one batch, as are their ends.
        self.create("y", "z")
        self.instance("delete", "y", "z", says="/instances/z]")
        for kind in ("instances", "disks"):
            self.gcloud("compute", kind, "list", says="Listed 0 items")
        self.gcloud("compute", "images", "delete", "img")
        self.gcloud("storage", "rm", "--recursive", "gs://bkt")

    def kill(self) -> None:
        """An emulator that is killed leaves no process, no network namespace, and no file once the next has run."""
        self.image()
        self.create("k")
        files = self.emulated.files
        print("$ kill -9", flush=True)
        left = self.emulated.kill()
        with Emulated(self.directory / "next.log", "--no-boot") as other:
            other.ask("GET", "/emulator/v1/about")
            left += [str(path) for path in files if path.exists()]
        print(f"  of its processes, namespaces, {[path.name for path in files]} are left: {left}", flush=True)
        if left or not files:
            raise WrongError(f"something was left: {left}")


class Tail:
    """`gcloud compute instances tail-serial-port-output`, which goes on until the instance stops."""

    def __init__(self, check: Check, name: str) -> None:
        self._output = check.directory / f"tail-{name}"
        print(f"$ gcloud compute instances tail-serial-port-output {name} &", flush=True)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["gcloud", "compute", "instances", "tail-serial-port-output", name],
                env=check.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        # It never ends by itself while the instance runs; a person presses Ctrl-C.
        self.ran = self._process.poll() is None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_TAIL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self, says: str) -> None:
        """It has shown the console for as long as it was looked at."""
        said = self._output.read_text(errors="replace")
        if not self.ran or says not in said:
            raise WrongError(f"tail-serial-port-output has ended or shows no {says!r}: {said[-2000:]}")
        print(f"  tail-serial-port-output has shown {len(said)} characters", flush=True)


PARTS = ("image", "boot", "ssh", "power", "faults", "compare", "upload", "delete", "kill")


def main() -> int:
    """Run the parts in their order."""
    parser = argparse.ArgumentParser(description="Check the emulator with the unmodified gcloud.")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="the image (default: the reference image)")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a directory for what is written, which stays")
    arguments = parser.parse_args()
    if shutil.which("gcloud") is None:
        print("gcloud is not installed: https://cloud.google.com/sdk/docs/install", file=sys.stderr)
        return 2
    # Ended politely, it ends its emulator too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = arguments.only.split(",")
    with contextlib.ExitStack() as stack:
        directory = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gcloud-")))
        directory.mkdir(exist_ok=True)
        archive = arguments.archive or _reference(directory)
        with Host() as host:
            scale = host.accelerator.scale
        emulated = stack.enter_context(Emulated(directory / "emulator.log"))
        check = Check(emulated, archive, directory, scale)
        try:
            for part in PARTS:
                if part in wanted:
                    print(f"== {part}", flush=True)
                    run: Callable[[], None] = getattr(check, part)
                    run()
        except (WrongError, VmtestsError, OSError, subprocess.TimeoutExpired) as error:
            print(f"WRONG: {error}", file=sys.stderr)
            return 1
    print("all is as it should be")
    return 0


def _reference(directory: Path) -> Path:
    """Build the reference image as an archive and return its path."""
    archive = directory / "reference.tar.gz"
    vmtests = Path(sys.executable).with_name("vmtests")
    subprocess.run([vmtests, "build", "--archive", archive], check=True, stdin=subprocess.DEVNULL)
    return archive


if __name__ == "__main__":
    sys.exit(main())
