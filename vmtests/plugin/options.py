"""The plugin's options, each also an environment variable and a key of pytest's configuration.

The first of these that is there counts: the option, the environment variable, the key, the default.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest


class Kind(StrEnum):
    """What an option's value is; it is a string where it is none of these."""

    TEXT = "string"
    WORDS = "args"
    FLAG = "bool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: `--vm-image`, `VMTESTS_IMAGE`, `vm_image`."""

    name: str
    help: str
    kind: Kind = Kind.TEXT
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    default: Callable[[], object] = lambda: None
    shown: str = ""
    """The default, for people."""
    variable: str = ""
    negatable: bool = False
    placed: Callable[[Path, str], str] | None = None
    """What names a file in pytest's configuration counts from its directory, as pytest's own paths do."""

    @property
    def key(self) -> str:
        """Its name in pytest's configuration, and in `Config.option`."""
        return self.name.replace("-", "_")

    @property
    def environment(self) -> str:
        """The environment variable."""
        return self.variable or f"VMTESTS_{self.key.removeprefix('vm_').upper()}"

    def add(self, group: pytest.OptionGroup, parser: pytest.Parser) -> None:
        """Add it to a group of options, and to the keys of the configuration."""
        told = f"{self.help} (default: {self.shown})" if self.shown else self.help
        settings: dict[str, Any] = {"default": None, "help": told, "dest": self.key}
        if self.kind is Kind.FLAG:
            settings["action"] = argparse.BooleanOptionalAction if self.negatable else "store_true"
        else:
            settings |= {"metavar": self.metavar, "choices": self.choices}
            if self.kind is Kind.WORDS:
                settings["action"] = "append"
        group.addoption(f"--{self.name}", **settings)
        parser.addini(self.key, f"as --{self.name}, or {self.environment}", type=self.kind.value, default=None)

    def value(self, config: pytest.Config, environment: Mapping[str, str]) -> object:
        """Return what counts; raises UsageError for what cannot be."""
        if (given := config.getoption(self.key)) not in (None, []):
            return given
        if text := environment.get(self.environment):
            return self._checked(self._parsed(text), self.environment)
        place = f"{self.key} in pytest's configuration"
        try:
            told = config.getini(self.key)
        except (TypeError, ValueError, pytest.UsageError) as error:  # which do not say whose value it is
            raise pytest.UsageError(f"{place}: {error}") from error
        if self.kind is Kind.TEXT and not isinstance(told, str | None):
            raise pytest.UsageError(f"{place} is {told!r}: it takes one value")
        if told in (None, "", []):
            return self.default()
        if self.placed is not None and isinstance(told, str):
            return self.placed(config.invocation_params.dir if config.inipath is None else config.inipath.parent, told)
        return self._checked(told, place)

    def _parsed(self, text: str) -> object:
        match self.kind:
            case Kind.WORDS:
                return text.replace(",", " ").split()
            case Kind.FLAG:
                if (word := text.lower()) not in _TRUE | _FALSE:
                    raise pytest.UsageError(f"{self.environment} is {text!r}: it takes yes or no")
                return word in _TRUE
        return text

    def _checked(self, value: object, source: str) -> object:
        if self.choices is not None and value not in self.choices:
            raise pytest.UsageError(f"{source} is {value!r}: it takes {', '.join(self.choices)}")
        return value


def _file(base: Path, told: str) -> str:
    return str(base / told)


def _image(base: Path, told: str) -> str:
    """Return the path of an image, or the flake at a path, for whoever is in any directory."""
    before = next((prefix for prefix in ("nix:path:", "nix:") if told.startswith(prefix)), "")
    path = told.removeprefix(before)
    # A flake's name without a dot or slash in front is one of the registry's (nix3-flake(1)).
    if told in {"reference", "nix"} or (before == "nix:" and not path.startswith(".")):
        return told
    path, mark, attribute = path.partition("#") if before else (path, "", "")
    return f"{before}{base / path}{mark}{attribute}"


TOLD = "vmtests_options"

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}

TARGETS = ("qemu", "gce")
"""Where machines run; `targets.LABORATORIES` has what makes them there."""

REWINDS = ("bootloader", "kernel", "initrd", "switch-root", "userspace", "ready")
"""The stages at whose beginning a machine can be kept (`Stage`, which takes longer to import than pytest)."""

OPTIONS = (
    Option(
        name="vm-image", metavar="reference|nix[:FLAKE#ATTR]|PATH", help="the image under test", placed=_image,
        default=lambda: "reference", shown="reference",
    ),
    Option(
        name="vm-contract", metavar="FILE", placed=_file,
        help="what the image promises, a file as docs/contract.md has it",
        shown="ours for an image with our layout, else what every image promises",
    ),
    Option(
        name="vm-login", metavar="USER[:PASSWORD]",
        help="who logs in where our credentials give no way in", shown="root, without a password",
    ),
    Option(name="vm-login-key", metavar="FILE", placed=_file, help="a private key that lets that user in over ssh"),
    Option(
        name="vm-seed", choices=("auto", "nocloud", "ignition", "none"), default=lambda: "auto", shown="auto",
        help="what a cloud would hand to the guest to let us in; auto is what the image listens to",
    ),
    Option(
        name="vm-module", metavar="debug|bloat[:SIZE]", kind=Kind.WORDS, default=list,
        help="a module built into the reference image; may be given several times",
    ),
    Option(
        name="vm-accel", choices=("auto", "kvm", "tcg"), help="the accelerator", default=lambda: "auto", shown="auto"
    ),
    Option(
        name="vm-timeout", metavar="SECONDS", help="the limit of each boot as a whole", shown="none"
    ),
    Option(
        name="vm-reuse", kind=Kind.FLAG, negatable=True, default=lambda: not os.environ.get("CI"),
        help="go on from the machine that an earlier run booted", shown="yes, but not where CI is set",
    ),
    Option(
        name="vm-fresh", choices=("fork", "boot"), help="how a test gets a machine of its own",
        default=lambda: "fork", shown="fork",
    ),
    Option(
        name="vm-from", choices=REWINDS,
        help="begin the boot where this stage begins, which the first such run keeps",
    ),
    Option(
        name="vm-target", choices=TARGETS, help="where machines run", default=lambda: "qemu", shown="qemu"
    ),
    Option(
        name="vm-console", kind=Kind.FLAG, default=lambda: False,
        help="open the cockpit when a test fails, at its machine and before that ends, with its console taken",
    ),
    Option(name="vm-results", metavar="DIR", placed=_file, help="the directory of the results, used as it is"),
    Option(name="gce-project", metavar="ID", help="the project", shown="that of the credentials"),
    Option(
        name="gce-zone", metavar="ZONE[,ZONE…]", kind=Kind.WORDS, variable="VMTESTS_GCE_ZONES", default=list,
        help="zones, in the order to be tried",
    ),
    Option(name="gce-bucket", metavar="NAME", help="the bucket for uploads", shown="PROJECT-vmtests"),
    Option(name="gce-endpoint", metavar="URL", help="an emulator on this host, as it prints it"),
    Option(name="gce-network", metavar="NAME", help="the network of the instances", shown="default"),
    Option(name="gce-subnetwork", metavar="NAME", help="its subnetwork; both may be links from projects/ on"),
    Option(
        name="gce-internal", kind=Kind.FLAG, default=lambda: False,
        help="give instances no external address: this host reaches their network",
    ),
    Option(
        name="gce-spot", kind=Kind.FLAG, default=lambda: False,
        help="instances that cost less, and that Compute Engine may take away",
    ),
    Option(name="gce-disk-type", metavar="TYPE", help="the type of the boot disk", shown="as the machine type has it"),
    Option(
        name="gce-os-login", kind=Kind.FLAG, default=lambda: False,
        help="leave logins to OS Login: nothing is run in the guest",
    ),
    Option(name="gce-instances", metavar="N", help="how many there may be at a time", shown="8"),
    Option(
        name="gce-machine", metavar="TYPE[,TYPE…]", shown="that of vmtests gce run",
        help="machine types; the tests run on one after the other",
    ),
)  # fmt: skip


def add(parser: pytest.Parser) -> None:
    """Add all of them."""
    group = parser.getgroup("vmtests", "booting disk images (each also as environment variable and ini key)")
    for option in OPTIONS:
        option.add(group, parser)


def machine_types(config: pytest.Config) -> list[str]:
    """Return the machine types on Compute Engine that were asked for."""
    return list(dict.fromkeys(filter(None, (config.getoption("gce_machine") or "").split(","))))


def settle(config: pytest.Config) -> None:
    """Write what counts into `config.option`; to a worker of pytest-xdist it was told. Raises UsageError."""
    told = getattr(config, "workerinput", {}).get(TOLD)
    for option in OPTIONS:
        setattr(config.option, option.key, option.value(config, os.environ) if told is None else told[option.key])


def settled(config: pytest.Config) -> dict[str, object]:
    """Return what counts, to be told to a worker as TOLD: its host may have another environment."""
    return {option.key: config.getoption(option.key) for option in OPTIONS}
