"""`vmtests gce …`: images on Compute Engine, or on an emulator of it."""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_image, add_json, add_modules, add_results, print_json
from vmtests.cli.screen import Lines, show
from vmtests.gce import reaper
from vmtests.gce.cloud import Cloud
from vmtests.gce.lab import DEFAULT_MACHINE, GceLab
from vmtests.gce.record import recording
from vmtests.gce.settings import Settings
from vmtests.host.results import later
from vmtests.machine.hardware import Hardware
from vmtests.vm import Heartbeat


def add(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    command = verbs.add_parser("upload", help="check an image and make one of it on Compute Engine, which stays")
    command.add_argument("image", metavar="ARCHIVE|DISK", help="a .tar.gz, .raw or .qcow2")
    command.add_argument("--hours", type=_hours, default=24.0, metavar="N", help="how long it is kept (default: 24)")
    _add_options(command)
    command.set_defaults(command=_upload)

    command = verbs.add_parser("run", help="boot an image on Compute Engine and say whether it got ready")
    _add_run(command)
    command.set_defaults(command=_run)

    command = verbs.add_parser("record", help="the same, and write down what was asked and answered, without secrets")
    command.add_argument("--to", type=Path, required=True, metavar="FILE", help="a new file")
    _add_run(command)
    command.set_defaults(command=_record)

    command = verbs.add_parser("gc", help="remove what dead runs have left on Compute Engine")
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    _add_options(command)
    command.set_defaults(command=_gc)


def _add_run(command: argparse.ArgumentParser) -> None:
    add_image(command)
    add_json(command)
    add_modules(command)
    command.add_argument("--gce-machine", default=DEFAULT_MACHINE, metavar="TYPE", help="default: %(default)s")
    command.add_argument("--secure-boot", action="store_true", help="have the firmware check signatures")
    command.add_argument("--tpm", action="store_true", help="give it a virtual TPM 2.0")
    _add_instance(command)
    command.add_argument(
        "--hours", type=_hours, default=1.0, metavar="N", help="when the instance deletes itself (default: 1)"
    )
    add_results(command)
    command.add_argument("--quiet", action="store_true", help="do not show the console")
    _add_options(command)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--gce-project", metavar="ID", help="the project")
    command.add_argument(
        "--gce-zone", action="append", default=[], metavar="ZONE[,ZONE…]", help="zones, in the order to be tried"
    )
    command.add_argument("--gce-bucket", metavar="NAME", help="the bucket for uploads (default: PROJECT-vmtests)")
    command.add_argument("--gce-endpoint", metavar="URL", help="an emulator on this host, as it prints it")


def _add_instance(command: argparse.ArgumentParser) -> None:
    command.add_argument("--gce-network", metavar="NAME", help="its network (default: default)")
    command.add_argument(
        "--gce-subnetwork", metavar="NAME", help="its subnetwork; both may be links from projects/ on"
    )
    command.add_argument("--gce-internal", action="store_true", help="give it no external address")
    command.add_argument("--gce-spot", action="store_true", help="one that costs less, and may be taken away")
    command.add_argument("--gce-disk-type", metavar="TYPE", help="default: as the machine type has it")
    command.add_argument("--gce-os-login", action="store_true", help="let nobody in by a key in the metadata")


def _hours(text: str) -> float:
    """Return a number of hours that an instance may run ("Limit the run time of a VM")."""
    hours = float(text)
    if not 1 / 30 <= hours <= 24 * 120:
        raise ValueError(text)
    return hours


def _settings(arguments: argparse.Namespace) -> Settings:
    def given(name: str) -> Any:
        return getattr(arguments, name, None)

    return Settings.find(
        project=arguments.gce_project,
        zones=arguments.gce_zone,
        bucket=arguments.gce_bucket,
        endpoint=arguments.gce_endpoint,
        network=given("gce_network"),
        subnetwork=given("gce_subnetwork"),
        internal=bool(given("gce_internal")),
        spot=bool(given("gce_spot")),
        disk_type=given("gce_disk_type"),
        os_login=bool(given("gce_os_login")),
        limit=1,
    )


def _lab(arguments: argparse.Namespace, settings: Settings) -> GceLab:
    return GceLab(
        later(arguments.results),
        settings,
        machine=arguments.gce_machine,
        lifetime=arguments.hours * 3600,
    )


def _upload(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    with GceLab(later(), settings, lifetime=arguments.hours * 3600) as lab:
        image = lab.image(str(arguments.image))
        if not image.inspection.ok:
            image.inspection.render(progress.console(stderr=True))
            return 1
        link = lab.keep(image)
    print(link)
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    failed = False
    for found in reaper.reap(Cloud(_settings(arguments)), time.time(), dry_run=arguments.dry_run):
        print(found)
        failed |= found.fate in (reaper.Fate.FAILED, reaper.Fate.UNSEEN)
    return 2 if failed else 0


def _record(arguments: argparse.Namespace) -> int:
    with recording(arguments.to, _settings(arguments)):
        try:
            return _run(arguments)
        finally:
            progress.stderr().print(
                Text(f"what was asked and answered is in {arguments.to}: look at it before you send it")
            )


def _run(arguments: argparse.Namespace) -> int:
    out = progress.stderr()
    with _lab(arguments, _settings(arguments)) as lab:
        image = lab.image(arguments.image, arguments.module)
        for breach in image.inspection.breaches:
            out.print(Text(f"inspection: {breach}"))
        watch = Heartbeat() if arguments.quiet else Lines(out)
        with lab.machine(image, Hardware(secure_boot=arguments.secure_boot, tpm=arguments.tpm), watch=watch) as vm:
            verdict = vm.wait_verdict()
            watch(vm.follower)
            if not verdict.ready:
                vm.diagnose(verdict)
        results = lab.results
    if arguments.json:
        print_json(verdict.to_json())
    else:
        show(verdict, results)
    return verdict.exit_status
