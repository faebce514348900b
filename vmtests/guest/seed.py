"""What clouds hand to a guest of theirs, for images that listen to it: cloud-init's NoCloud, Ignition.

cloud-init, doc/rtd/reference/datasources/nocloud.rst and cc_ssh; Ignition, docs/supported-platforms.md (QEMU) and
docs/configuration-v3_0.md, which later versions read, too.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.guest.login import Login

_CONFIG = "opt/com.coreos/config"


class Seed(StrEnum):
    """How a guest is let in by what a cloud would hand it; none of it changes the image."""

    AUTO = "auto"
    """By what the image listens to."""
    NOCLOUD = "nocloud"
    """A further disk labelled CIDATA."""
    IGNITION = "ignition"
    """A file of the firmware's configuration device."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """Files of a disk labelled CIDATA, and files of fw_cfg, by name."""

    disk: dict[str, bytes] = field(default_factory=dict)
    fw_cfg: dict[str, bytes] = field(default_factory=dict)


def seeded(seed: Seed, listens: frozenset[str], public_key: str, login: Login | None, hostname: str) -> Seeded:
    """Return what lets `public_key` in as root, and as the user of `login`, in a guest that `listens` to it."""
    ways = {Seed.NOCLOUD: "cloud-init" in listens, Seed.IGNITION: "ignition" in listens}
    asked = [way for way, listening in ways.items() if seed is way or (seed is Seed.AUTO and listening)]
    users = dict.fromkeys(("root", "root" if login is None else login.user))
    return Seeded(
        disk=_no_cloud(public_key, list(users), hostname) if Seed.NOCLOUD in asked else {},
        fw_cfg=_ignition(public_key, list(users)) if Seed.IGNITION in asked else {},
    )


def _no_cloud(public_key: str, users: list[str], hostname: str) -> dict[str, bytes]:
    # The key is the default user's, too: who is root there without being asked, where root itself may not log in.
    config: dict[str, object] = {"disable_root": False, "ssh_authorized_keys": [public_key]}
    if others := [user for user in users if user != "root"]:
        rights = {"ssh_authorized_keys": [public_key], "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": False}
        config["users"] = ["default", *({"name": user, **rights} for user in others)]
    # JSON is YAML.
    told = {"instance-id": f"vmtests-{hostname}", "local-hostname": hostname}
    return {
        "user-data": f"#cloud-config\n{json.dumps(config)}\n".encode(),
        "meta-data": f"{json.dumps(told)}\n".encode(),
    }


def _ignition(public_key: str, users: list[str]) -> dict[str, bytes]:
    accounts = [{"name": user, "sshAuthorizedKeys": [public_key]} for user in users]
    config = {"ignition": {"version": "3.0.0"}, "passwd": {"users": accounts}}
    return {_CONFIG: json.dumps(config).encode()}
