from vmtests import ColdVm, FirmwareKind, Hardware, Vm


def test_it_is_what_it_says(vm: Vm) -> None:
    assert vm.run("cat /etc/hostname").lines == ["debian"]


def test_it_boots_on_a_bios_too(cold_vm: ColdVm) -> None:
    assert cold_vm(hardware=Hardware(firmware=FirmwareKind.BIOS)).mounts.top("/").fstype == "ext4"
