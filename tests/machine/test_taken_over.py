"""A QEMU that its guest has taken over: a program of the attacker's in its place, confined in just the same way."""

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.machine.conftest import FakeToolbox, Recorder
from tests.machine.test_confine import qcow2
from vmtests.errors import HostError
from vmtests.host.accel import Accelerator
from vmtests.host.firmware import Firmware
from vmtests.host.sandbox import View, sandbox
from vmtests.host.user import unprivileged, why_root
from vmtests.machine import handover
from vmtests.machine.confine import check_over
from vmtests.machine.hardware import Hardware, Net
from vmtests.machine.qemu import QemuMachine


class Taken(FakeToolbox):
    """A toolbox whose QEMU is the attacker's script, in the sandbox that QEMU would have had."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script

    def argv(self, name: str, *_: str | os.PathLike[str], view: View | None = None) -> list[str]:
        """Return the command line of the script."""
        assert name.startswith("qemu-system")
        assert view is not None
        return [*sandbox(Path("/"), view), "bash", "-c", self._script]


@dataclass
class Victim:
    """A host with secrets, and machines on it."""

    home: Path
    make: Callable[..., QemuMachine]
    machines: list[QemuMachine] = field(default_factory=list)

    def run(self, script: str, hardware: Hardware | None = None) -> tuple[QemuMachine, list[str]]:
        """Let the attacker run to its end; return the machine, and what the attacker got."""
        machine = self.make(script, hardware or Hardware(net=Net.NONE))
        self.machines.append(machine)
        machine.spawn()
        machine.wait_exit(20)
        return machine, (self.home / "results/qemu.stderr").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def no_root() -> None:
    """Needs a host on which nobody's machine runs as root."""
    if os.geteuid() == 0 and (why := why_root(Path("/"))) is not None:
        pytest.skip(f"this host lets root be nobody else: {why}")


@pytest.fixture
def demotion(no_root: None) -> None:
    """Needs somebody who can have a program run as another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can have a program run as another user")


@pytest.fixture
def victim(tmp_path: Path, tcg: Accelerator, ovmf: Firmware, recorder: Recorder, hiding: None) -> Iterator[Victim]:
    """A host whose secrets everybody may read, so that the confinement alone keeps them."""
    for secret in ("other-run/console.log", "home/.ssh/id_ed25519", "other-image.raw", "image.raw"):
        path = tmp_path / secret
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret", encoding="utf-8")

    def make(script: str, hardware: Hardware, own: Path | None = None) -> QemuMachine:
        return QemuMachine(
            toolbox=Taken(script),
            accelerator=tcg,
            firmware=ovmf,
            hardware=hardware,
            image=own or tmp_path / "image.raw",
            own=own is not None,
            results=tmp_path / "results",
            listener=recorder,
        )

    with contextlib.ExitStack() as stack:
        victim = Victim(tmp_path, make)
        yield victim
        for machine in victim.machines:
            stack.callback(machine.close)


def test_it_reads_nobodys_files(victim: Victim) -> None:
    """Not root's home, nor the passwords, nor another run's results or image; its own image it can read."""
    hidden = ("other-run/console.log", "home/.ssh/id_ed25519", "other-image.raw")
    wanted = [
        *(os.fspath(victim.home / name) for name in hidden),
        "/etc/shadow",
        f"{Path.home()}/.",
        "/root/.",
        "/home/.",
    ]
    tries = "\n".join(f"head -c 1 '{path}' >&2 && echo ' read {path}' >&2; ls '{path}' >&2 2>&1" for path in wanted)
    _, got = victim.run(f"({tries}) 2>/dev/null; cat {victim.home}/image.raw >&2")
    assert got == ["secret"]


def test_it_finds_no_secret_of_the_environment(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its own nor in that of a process that it sees: CI has its tokens there."""
    monkeypatch.setenv("DEPLOY_TOKEN", "hush")
    _, got = victim.run("cat /proc/[0-9]*/environ | tr '\\0' '\\n' >&2")
    assert [line for line in got if line.startswith("PATH=")]
    assert not [line for line in got if "hush" in line]


def test_it_writes_nobodys_files(victim: Victim) -> None:
    """Not to its image, nor beside its own files, nor into the system."""
    targets = ("image.raw", "results/qemu.argv", "results/new", "other-run/console.log")
    paths = [*(os.fspath(victim.home / name) for name in targets), "/usr/bin/x", "/etc/x", "/proc/sys/kernel/panic"]
    victim.run("\n".join(f"printf own%s ed >> '{path}'" for path in paths))
    assert "owned" not in "".join(path.read_text() for path in victim.home.rglob("*") if path.is_file())
    assert not Path("/usr/bin/x").exists()
    assert not Path("/etc/x").exists()


def test_it_kills_nobody_and_sees_nobody(victim: Victim) -> None:
    """It has a process namespace of its own: `kill -9 -1` reaches its own children."""
    _, got = victim.run(
        f"kill -9 {os.getpid()}; kill -0 {os.getppid()} && echo alive >&2; ls -d /proc/[0-9]* | wc -l >&2"
    )
    assert "alive" not in got
    assert int(got[-1]) < 10


@pytest.mark.usefixtures("no_root")
def test_it_is_not_root_where_we_are(victim: Victim) -> None:
    """Root outside is nobody inside, has no capability, and gets none; what it wrote is ours again in the end."""
    machine, got = victim.run(
        "id -u >&2; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status >&2; cat /proc/self/uid_map >&2"
    )
    number, *status, mapped = got
    assert (status[0], status[-1]) == ("CapEff:\t0000000000000000", "NoNewPrivs:\t1")
    if os.geteuid() == 0:
        assert 61184 <= int(number) < 65520
        assert mapped.split()[:2] == ["0", "0"], "the number is not another one outside"
        assert status[1] == "CapBnd:\t0000000000000000"
    machine.close()
    assert (victim.home / "results/ttyS0.log").stat().st_uid == os.geteuid()


def test_machine_without_a_network_reaches_nobody(victim: Victim) -> None:
    """Neither a port of the host, nor an abstract socket's name; one with a network shares the host's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        knock = f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo connected >&2; cat /proc/net/unix >&2"
        _, got = victim.run(knock)
    assert "connected" not in got
    assert not [line for line in got if "@" in line]


@pytest.mark.usefixtures("demotion")
def test_machines_are_different_users() -> None:
    """What one of them has taken over is not the other's user either."""
    assert len({user.number for user in (unprivileged(Path("/"), ()) for _ in range(9)) if user is not None}) == 9


@pytest.mark.usefixtures("demotion")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_what_only_its_owner_may_read(tmp_path: Path, mode: int) -> None:
    """An image of a group is read as one of that group; one that is root's alone has QEMU stay root, as it was."""
    image = tmp_path / "image"
    image.touch(mode)
    image.chmod(mode)
    user = unprivileged(Path("/"), (image,))
    expected = {0o600: None, 0o640: (image.stat().st_gid,), 0o644: ()}[mode]
    assert (None if user is None else user.groups) == expected


def test_links_that_it_leaves_are_not_followed(victim: Victim) -> None:
    """What it puts in place of its variables or its TPM is refused, and gone when the machine is renewed."""
    secret = victim.home / "other-run/console.log"
    links = f"ln -s {secret} variables && ln -s {secret.parent} tpm && mkfifo pipe"
    machine, got = victim.run(
        f"cd {victim.home}/results/.machine-* && rm -rf variables tpm && {links} && echo done >&2"
    )
    assert got == ["done"]
    (private,) = (victim.home / "results").glob(".machine-*")
    with pytest.raises(OSError, match="variables"):
        handover.copy(private / "variables", victim.home / "copied")
    with pytest.raises(HostError, match="no file any more"):
        handover.copy(private / "pipe", victim.home / "copied")
    with pytest.raises(OSError, match="tpm"):
        handover.copy_directory(private / "tpm", victim.home / "copied")
    machine.renew()
    assert secret.read_text(encoding="utf-8") == "secret"
    assert stat.S_ISREG((private / "variables").lstat().st_mode)
    assert not (private / "pipe").exists()


@pytest.mark.parametrize("end", ["renew", "close"])
def test_nothing_that_it_leaves_is_too_deep_to_be_removed(victim: Victim, end: str) -> None:
    """Its files are gone when the machine is renewed or ends, though Python has not as many calls as they are deep."""
    machine, got = victim.run(
        f"cd {victim.home}/results/.machine-* && mkdir -p $(printf 'd/%.0s' $(seq 1500)) && echo done >&2"
    )
    assert got == ["done"]
    getattr(machine, end)()
    assert not list((victim.home / "results").glob(".machine-*/d"))


@pytest.mark.parametrize(
    ("backing", "data", "features"),
    [
        (b"/etc/shadow", b"", 0),
        (b'json:{"driver":"file","filename":"/etc/shadow"}', b"", 0),
        (b"nbd://host/x", b"", 0),
        (b"", b"", 0),
        (b"image", b"/etc/shadow", 0),
        (b"image", b"nbd://host/x", 0),
        (b"image", b"", 1 << 2),
    ],
)
def test_disk_that_names_other_files_is_not_read(tmp_path: Path, backing: bytes, data: bytes, features: int) -> None:
    """Whatever QEMU has written into the head of its disk, only the image that it was laid over is opened."""
    image = tmp_path / "image"
    image.touch()
    disk = qcow2(tmp_path / "disk", backing=b"image")
    check_over(disk, image)
    qcow2(disk, backing=backing, data=data)
    with disk.open("r+b") as file:
        file.seek(72)
        file.write(features.to_bytes(8, "big"))
    with pytest.raises(HostError, match="names other files"):
        check_over(disk, image)


def test_own_disk_is_laid_over_what_it_was(victim: Victim) -> None:
    """A disk that QEMU writes to and that stays names another image before a power cut: QEMU does not see that."""
    secret = victim.home / "other-run/console.log"
    disk = qcow2(victim.home / "own.qcow2", backing=bytes(victim.home / "image.raw"))
    machine = victim.make(f"cat {secret} >&2", Hardware(net=Net.NONE), own=disk)
    victim.machines.append(machine)
    qcow2(disk, backing=bytes(secret))
    machine.spawn()
    machine.wait_exit(20)
    assert "secret" not in (victim.home / "results/qemu.stderr").read_text(encoding="utf-8").splitlines()
