from vmtests import Vm


def test_nginx_listens(vm: Vm) -> None:
    assert vm.run("systemctl is-active nginx").lines == ["active"]
