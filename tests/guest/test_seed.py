"""What a cloud would hand to a guest."""

import json

import pytest

from vmtests.guest.login import Login
from vmtests.guest.seed import Seed, seeded

KEY = "ssh-ed25519 AAAA vmtests"
BOTH = frozenset({"cloud-init", "ignition"})


@pytest.mark.parametrize(
    ("seed", "listens", "disk", "fw_cfg"),
    [
        (Seed.AUTO, frozenset(), False, False),
        (Seed.AUTO, frozenset({"cloud-init"}), True, False),
        (Seed.AUTO, BOTH, True, True),
        (Seed.NONE, BOTH, False, False),
        (Seed.NOCLOUD, frozenset(), True, False),
        (Seed.IGNITION, frozenset({"cloud-init"}), False, True),
    ],
)
def test_image_gets_what_it_listens_to(seed: Seed, listens: frozenset[str], disk: bool, fw_cfg: bool) -> None:
    """A guest is handed what its image listens to, or what somebody asks for; nothing else."""
    given = seeded(seed, listens, KEY, None, "vm-1")
    assert (disk, fw_cfg) == (bool(given.disk), bool(given.fw_cfg))


def test_no_cloud() -> None:
    """The key is root's; a user that is named gets it too, and may become root."""
    disk = seeded(Seed.NOCLOUD, frozenset(), KEY, None, "vm-1").disk
    head, _, text = disk["user-data"].decode().partition("\n")
    config = json.loads(text)
    assert head == "#cloud-config"
    assert [KEY] == config["ssh_authorized_keys"]
    assert config["disable_root"] is False
    assert "users" not in config
    assert json.loads(disk["meta-data"])["local-hostname"] == "vm-1"
    named = seeded(Seed.NOCLOUD, frozenset(), KEY, Login(user="debian"), "vm-1").disk["user-data"]
    default, user = json.loads(named.partition(b"\n")[2])["users"]
    assert ("default", "debian", [KEY]) == (default, user["name"], user["ssh_authorized_keys"])


def test_ignition() -> None:
    """Ignition gets the key of each user, in the version that all of its third kind read."""
    files = seeded(Seed.IGNITION, frozenset(), KEY, Login(user="core"), "vm-1").fw_cfg
    config = json.loads(files["opt/com.coreos/config"])
    assert config["ignition"]["version"] == "3.0.0"
    assert ["root", "core"] == [user["name"] for user in config["passwd"]["users"]]
