"""People and programs get in: by a root shell on the serial line, and by ssh."""

import secrets
from pathlib import Path

import pytest

from vmtests.contract import Contract, Promise
from vmtests.errors import GuestError
from vmtests.guest.keys import Key
from vmtests.guest.ssh import Ssh
from vmtests.vm import Vm


@pytest.mark.vm(promises="store")
def test_serial_shell_and_ssh_reach_the_same_boot(vm: Vm) -> None:
    """The serial shell and ssh answer with the same boot id."""
    command = "cat /proc/sys/kernel/random/boot_id"
    assert vm.shell.run(command).check().stdout == vm.ssh.run(command).check().stdout


def test_serial_shell_separates_streams(vm: Vm, vm_contract: Contract) -> None:
    """A command on the serial line gives standard output, standard error and exit code, each exact."""
    nonce = secrets.token_hex(8)
    try:
        shell = vm.shell
    except GuestError as error:
        if Promise.STORE in vm_contract.promises or not vm.run("true").ok:
            raise
        pytest.skip(f"this image lets nobody in on its serial line, nor is that promised: {error.message}")
    result = shell.run(f"printf '%s\\n' {nonce}; printf 'bad %s' {nonce} >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (f"{nonce}\n", f"bad {nonce}", 7)


@pytest.mark.vm(promises="store")
def test_ssh_separates_streams(vm: Vm) -> None:
    """A command over ssh gives standard output, standard error and exit code, each exact."""
    nonce = secrets.token_hex(8)
    result = vm.ssh.run(f"printf '%s\\n' {nonce}; printf 'bad %s' {nonce} >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (f"{nonce}\n", f"bad {nonce}", 7)


@pytest.mark.vm(promises="store")
def test_ssh_refuses_an_unknown_host_key(vm: Vm, tmp_path: Path) -> None:
    """A host key other than the one read on the serial line is refused, not trusted."""
    other = Key.generate(tmp_path)
    with (
        Ssh(*vm.ssh_address, vm.key, [other.public]) as ssh,
        pytest.raises(GuestError, match="host key"),
    ):
        ssh.connect(60.0)


@pytest.mark.vm(promises="store")
def test_ssh_refuses_a_foreign_user_key(vm: Vm, tmp_path: Path) -> None:
    """Only the key of this run, handed in as a credential, opens the guest."""
    other = Key.generate(tmp_path)
    keys = vm.run("cat /etc/ssh/ssh_host_*_key.pub").check().lines
    with Ssh(*vm.ssh_address, other, keys) as ssh, pytest.raises(GuestError, match="refused"):
        ssh.connect(60.0)


@pytest.mark.vm(promises="store")
def test_guest_agent_is_there_and_has_not_failed(vm: Vm) -> None:
    """The Compute Engine guest agent is enabled and did not fail; without a metadata server it does not start."""
    assert vm.run("systemctl is-enabled google-guest-agent.service").check().stdout.strip() == "enabled"
    shown = vm.run("systemctl show google-guest-agent.service -p ActiveState -p Result --value").check().lines
    assert shown in (["success", "active"], ["exec-condition", "inactive"])
