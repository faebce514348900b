from vmtests import Vm


def test_it_is_what_it_says(vm: Vm) -> None:
    assert vm.run("cat /etc/hostname").lines == ["mkosi-guest"]
