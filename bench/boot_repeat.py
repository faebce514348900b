"""Boots the reference image, cold, again and again, and says how often it got ready and how long it took.

    bench/boot_repeat.py -n 20

One line for each boot, one JSON line at the end; exit status 1 when a boot did not get ready.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from vmtests.errors import VmtestsError
from vmtests.host.results import new_directory
from vmtests.qemu.lab import Lab


def main() -> int:
    """Run the boots."""
    parser = argparse.ArgumentParser(description="Boot an image again and again.")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="boots (default: %(default)s)")
    parser.add_argument("--image", default="reference", help="`reference`, or the path of a disk image")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--results", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    seconds: list[float] = []
    ready = 0
    with Lab(new_directory(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image)
        for number in range(1, arguments.n + 1):
            started = time.monotonic()
            with lab.machine(image, name=f"boot-{number}") as vm:
                verdict = vm.wait_verdict()
            seconds.append(time.monotonic() - started)
            ready += verdict.ready
            print(f"{number:3} {seconds[-1]:6.1f} s {verdict.stage}: {verdict.sentence}", flush=True)
    print(
        json.dumps(
            {
                "boots": arguments.n,
                "ready": ready,
                "median_s": round(statistics.median(seconds), 1),
                "max_s": round(max(seconds), 1),
            }
        )
    )
    return 0 if ready == arguments.n else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"boot_repeat: {error}")
