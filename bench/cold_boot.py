"""Compares a cold boot, followed to its verdict, with bare QEMU on the same arguments to the same line.

    bench/cold_boot.py -n 5 --json

Both are measured from the call that starts them: ours until the verdict is known, bare QEMU's until the line by which
the guest says that no job is left has come. They take turns, so that a noisy host troubles both.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from vmtests.errors import GuestError, VmtestsError
from vmtests.guest import credentials
from vmtests.host.results import new_directory
from vmtests.machine import argv, disk
from vmtests.machine.hardware import Hardware, oem_strings
from vmtests.qemu.lab import DISK_SIZE, Lab
from vmtests.vm import Image

LIMIT_SECONDS = 600.0


def main() -> int:
    """Run the boots."""
    parser = argparse.ArgumentParser(description="Compare a cold boot with bare QEMU.")
    parser.add_argument("-n", type=int, default=5, metavar="N", help="boots of each kind (default: %(default)s)")
    parser.add_argument("--image", default="reference", help="`reference`, or the path of a disk image")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    arguments = parser.parse_args()
    ours: list[float] = []
    bare: list[float] = []
    with Lab(lambda: new_directory(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image)
        for number in range(1, arguments.n + 1):
            ours.append(_ours(lab, image, f"boot-{number}"))
            bare.append(_bare(lab, image))
            if not arguments.json:
                print(f"{number:3} vmtests {ours[-1]:6.1f} s, bare QEMU {bare[-1]:6.1f} s", flush=True)
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    medians = {"cold_boot_s": statistics.median(ours), "bare_qemu_s": statistics.median(bare)}
    print(json.dumps({"boots": arguments.n, **{name: round(value, 1) for name, value in medians.items()},
                      "boot_over_bare": round(ratio, 3)}))  # fmt: skip
    return 0


def _ours(lab: Lab, image: Image, name: str) -> float:
    started = time.monotonic()
    with lab.machine(image, name=name) as vm:
        vm.wait_ready()
        return time.monotonic() - started


def _bare(lab: Lab, image: Image) -> float:
    """Start QEMU with nothing around it but its sandbox, and read the console until the guest has no job left."""
    token = f"bare-{secrets.token_hex(8)}"
    handed = credentials.all_of("none", lab.contract, token)
    size = max(DISK_SIZE, disk.backing(image.path).size)
    hardware = replace(Hardware(disk_size=size), credentials=handed)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab.results)))
        firmware = lab.host.firmware()
        disk.make_overlay(lab.host.toolbox, disk.backing(image.path), directory / "disk.qcow2", size)
        shutil.copyfile(firmware.vars_template.outside, directory / "variables")
        files = []
        for number, text in enumerate(oem_strings(hardware)):
            files.append(directory / f"oem-{number}")
            files[-1].write_bytes(text)
        ends = [tuple(stack.enter_context(end) for end in socket.socketpair()) for _ in range(4)]
        console, debug, debug_port, monitor = (other.fileno() for _, other in ends)
        ram = os.memfd_create("bare")
        stack.callback(os.close, ram)
        parts = argv.Parts(
            accelerator=lab.host.accelerator, firmware=firmware, variables=directory / "variables",
            disk=directory / "disk.qcow2", credential_files=tuple(files), qmp_fd=monitor, serial_fds=(console, debug),
            serial_logs=(directory / "ttyS0.log", directory / "ttyS1.log"), firmware_fd=debug_port,
            ram=Path(f"/proc/self/fd/{ram}"),
        )  # fmt: skip
        arguments = [item for item in argv.qemu_args(hardware, parts) if item != "-S"]
        process = subprocess.Popen(
            lab.host.toolbox.argv("qemu-system-x86_64", *arguments),
            pass_fds=[console, debug, debug_port, monitor, ram],
            stdin=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        for ours, other in ends[1:3]:
            other.close()
            threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        ends[0][1].close()
        _read_until(ends[0][0], token.encode(), started + LIMIT_SECONDS)
        return time.monotonic() - started


def _drain(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while end.recv(65536):
            pass


def _read_until(end: socket.socket, token: bytes, deadline: float) -> None:
    """Read the console until the token and a word of state after it have come, which a greeting's `hello` is not."""
    seen = b""
    while (left := deadline - time.monotonic()) > 0:
        end.settimeout(left)
        data = end.recv(65536)
        if not data:
            break
        seen = seen[-4096:] + data
        if any(token + b" " in line and b"hello" not in line for line in seen.split(b"\n")[:-1]):
            return
    raise GuestError("bare QEMU did not boot the guest")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"cold_boot: {error}")
