"""Compares the time to the first answer of a fresh machine with how others get one, from the same image.

    bench/others.py -n 3 --json

Each is asked what is mounted at /nix/store, and answers `overlayfs`. They take turns, so that a noisy host troubles
all: a cold boot of ours, labgrid's QEMUDriver with its ShellDriver, a script with pexpect that waits for a prompt, a
machine that is rebooted for the next test, and a fork. The image, the tools, the firmware, the hardware and the
credentials, which let root in without a password, are the same. The terminal is a dumb one, since labgrid's pattern
finds no prompt behind bash's bracketed paste. labgrid is needed, which `make bench` installs.
"""

import argparse
import contextlib
import json
import secrets
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import labgrid
import pexpect

from vmtests.errors import GuestError, VmtestsError
from vmtests.guest import credentials
from vmtests.host.results import new_directory
from vmtests.machine import disk
from vmtests.machine.hardware import Hardware, oem_strings
from vmtests.qemu.lab import DISK_SIZE, Lab
from vmtests.vm import Image

QUESTION = "stat -f -c %T /nix/store"
ANSWER = "overlayfs"
LIMIT_SECONDS = 600
_PROMPT = r"-bash-[0-9.]+# "  # the image ships no shell start-up files


def main() -> int:
    """Run the machines."""
    parser = argparse.ArgumentParser(description="Compare the time to a fresh machine's first answer.")
    parser.add_argument("-n", type=int, default=3, metavar="N", help="machines of each kind (default: %(default)s)")
    parser.add_argument("--image", default="reference", help="`reference`, or the path of a disk image")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with Lab(lambda: new_directory(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image)
        with lab.start(image) as start:
            snapshot = start.wait()

            def fork(name: str) -> None:
                with lab.fork(image, snapshot, name=name) as vm:
                    _judge(vm.run(QUESTION).stdout)

            def reboot(_name: str) -> None:
                start.vm.reboot()
                _judge(start.vm.run(QUESTION).stdout)

            ways: dict[str, Callable[[str], None]] = {
                "cold_boot": lambda name: _cold(lab, image, name),
                "labgrid": lambda _: _labgrid(lab, image),
                "pexpect": lambda _: _pexpect(lab, image),
                "reboot": reboot,
                "fork": fork,
            }
            for number in range(1, arguments.n + 1):
                for way, run in ways.items():
                    started = time.monotonic()
                    run(f"{way}-{number}")
                    seconds.setdefault(way, []).append(time.monotonic() - started)
                    if not arguments.json:
                        print(f"{number:3} {way:10} {seconds[way][-1]:6.2f} s", flush=True)
    medians = {f"{way}_s": round(statistics.median(each), 2) for way, each in seconds.items()}
    print(json.dumps({"machines": arguments.n, **medians}))
    return 0


def _judge(said: str) -> None:
    if said.strip() != ANSWER:
        raise GuestError(f"a guest answered {said!r} instead of {ANSWER}")


def _cold(lab: Lab, image: Image, name: str) -> None:
    with lab.machine(image, name=name) as vm:
        vm.wait_ready()
        _judge(vm.run(QUESTION).stdout)


@dataclass(frozen=True, slots=True)
class _Plain:
    """QEMU without us: a script that starts it, and the arguments that make the machine, but for its serial port."""

    program: Path
    arguments: list[str]


@contextlib.contextmanager
def _plain(lab: Lab, image: Image) -> Iterator[_Plain]:
    handed = credentials.all_of("none", lab.contract, f"plain-{secrets.token_hex(8)}")
    size = max(DISK_SIZE, disk.backing(image.path).size)
    hardware = replace(Hardware(disk_size=size), credentials=handed)
    firmware = lab.host.firmware()
    with tempfile.TemporaryDirectory(dir=lab.results) as made:
        directory = Path(made)
        overlay, variables, program = directory / "disk.qcow2", directory / "variables", directory / "qemu"
        disk.make_overlay(lab.host.toolbox, disk.backing(image.path), overlay, size)
        shutil.copyfile(firmware.vars_template.outside, variables)
        program.write_text(f'#!/bin/sh\nexec {shlex.join(lab.host.toolbox.argv("qemu-system-x86_64"))} "$@"\n')
        program.chmod(0o700)
        told = []
        for number, text in enumerate(oem_strings(hardware)):
            (directory / f"oem-{number}").write_bytes(text)
            told += ["-smbios", f"type=11,path={directory}/oem-{number}"]
        code, template = firmware.code, firmware.vars_template
        arguments = [
            *("-accel", f"{lab.host.accelerator.name}{',thread=multi' if lab.host.accelerator.name == 'tcg' else ''}"),
            *("-smp", str(hardware.cpus)),
            *("-nodefaults", "-no-user-config"),
            *("-drive", f"if=pflash,unit=0,format={code.format},readonly=on,file={code.inside}"),
            *("-drive", f"if=pflash,unit=1,format={template.format},file={variables}"),
            *told,
            *("-drive", f"if=none,id=disk0,format=qcow2,cache=unsafe,file={overlay}"),
            *("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk0,bootindex=1"),
            *("-netdev", "user,id=net0,restrict=on", "-device", "virtio-net-pci,netdev=net0,romfile="),
            *("-object", "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-pci,rng=rng0"),
            *("-device", "vmgenid,guid=auto", "-device", "pvpanic", "-device", "VGA"),
        ]
        yield _Plain(program, arguments)


def _labgrid(lab: Lab, image: Image) -> None:
    with _plain(lab, image) as plain:
        drivers = {
            "QEMUDriver": {
                "qemu_bin": "qemu",
                "machine": "q35",
                "cpu": lab.host.accelerator.cpu,
                "memory": f"{Hardware().memory_mib}M",
                "extra_args": shlex.join(plain.arguments),
            },
            "ShellDriver": {
                "prompt": _PROMPT,
                "login_prompt": "login: ",
                "username": "root",
                "login_timeout": LIMIT_SECONDS,
            },
        }
        config = plain.program.with_name("labgrid.yaml")
        # JSON is YAML too.
        config.write_text(
            json.dumps({"targets": {"main": {"drivers": drivers}}, "tools": {"qemu": str(plain.program)}})
        )
        target = labgrid.Environment(str(config)).get_target("main")
        machine = target.get_driver("QEMUDriver")
        machine.on()
        try:
            shell = target.get_driver("ShellDriver")
            _judge("\n".join(shell.run_check(QUESTION)))
        finally:
            machine.off()
            target.cleanup()


def _pexpect(lab: Lab, image: Image) -> None:
    with _plain(lab, image) as plain:
        hardware = ["-machine", "q35", "-cpu", lab.host.accelerator.cpu, "-m", f"{Hardware().memory_mib}M"]
        command = [*plain.arguments, *hardware, "-display", "none", "-serial", "stdio"]
        child = pexpect.spawn(
            str(plain.program), command, timeout=LIMIT_SECONDS, encoding="utf-8", codec_errors="replace"
        )
        try:
            child.expect(_PROMPT)
            child.sendline(f"echo answer=$({QUESTION})=")
            child.expect(f"answer=({ANSWER})=")
        finally:
            child.close(force=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"others: {error}")
