"""Options, environment variables and keys of the configuration; and what a test says that it needs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.plugin.machines import free_name
from vmtests.plugin.options import OPTIONS, REWINDS, TARGETS
from vmtests.plugin.targets import LABORATORIES
from vmtests.qemu import lab

Run = Callable[..., pytest.RunResult]

_TELLS = """
import pytest

@pytest.fixture(scope="session")
def _vmtests_machines():
    return None

def test_it(pytestconfig, _vmtests_machines):
    print("told:", pytestconfig.getoption("vm_accel"), pytestconfig.getoption("vm_module"),
          pytestconfig.getoption("vm_reuse"))
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.environment, raising=False)
    monkeypatch.delenv("CI", raising=False)


def _told(result: pytest.RunResult) -> str:
    result.assert_outcomes(passed=1)
    (line,) = [line for line in result.outlines if "told: " in line]
    return line.partition("told: ")[2]


_CONFIGURED = '[tool.pytest.ini_options]\nvm_accel = "kvm"\nvm_module = ["debug", "bloat"]\nvm_reuse = false\n'


def test_option_comes_before_environment_before_configuration(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option counts before the environment variable, that before the key, that before the default."""
    pytester.makepyfile(_TELLS)
    assert _told(run("-rP")) == "auto [] True"
    pytester.makepyprojecttoml(_CONFIGURED)
    assert _told(run("-rP")) == "kvm ['debug', 'bloat'] False"
    monkeypatch.setenv("VMTESTS_ACCEL", "tcg")
    monkeypatch.setenv("VMTESTS_MODULE", "debug,bloat:2G")
    monkeypatch.setenv("VMTESTS_REUSE", "yes")
    assert _told(run("-rP")) == "tcg ['debug', 'bloat:2G'] True"
    assert _told(run("--vm-accel=auto", "--vm-module=debug", "--no-vm-reuse", "-rP")) == "auto ['debug'] False"


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("result/disk.raw", "{}/result/disk.raw"),
        ("/disk.raw", "/disk.raw"),
        ("reference", "reference"),
        ("nix", "nix"),
        ("nix:.#image", "nix:{}#image"),
        ("nix:path:./flake", "nix:path:{}/flake"),
        ("nix:/flake#image", "nix:/flake#image"),
        ("nix:nixpkgs#image", "nix:nixpkgs#image"),
    ],
)
def test_path_in_the_configuration_counts_from_its_directory(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, told: str, meant: str
) -> None:
    """Whoever runs pytest in a directory below has the same image, contract, key and results."""
    pytester.makeini(f"[pytest]\nvm_image = {told}\nvm_contract = nix\n")
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    config = pytester.parseconfig(below)
    assert config.inipath is not None
    found = {option.key: option.value(config, {}) for option in OPTIONS if option.placed}
    assert found["vm_image"] == meant.format(pytester.path)
    assert found["vm_contract"] == f"{pytester.path}/nix"
    assert found["vm_results"] is None
    assert next(one for one in OPTIONS if one.key == "vm_image").value(config, {"VMTESTS_IMAGE": told}) == told


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("VMTESTS_ACCEL", "xen", "VMTESTS_ACCEL is 'xen': it takes auto, kvm, tcg"),
        ("VMTESTS_REUSE", "perhaps", "VMTESTS_REUSE is 'perhaps': it takes yes or no"),
    ],
)
def test_what_a_variable_cannot_be_is_one_sentence(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    """A value that is none ends pytest with the variable's name and what it takes."""
    pytester.makepyfile("def test_it(): pass")
    monkeypatch.setenv(variable, value)
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {sentence}"])


def test_what_a_key_cannot_be_is_one_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """So does a key of the configuration that pytest itself cannot read."""
    pytester.makepyfile("def test_it(): pass")
    pytester.makeini("[pytest]\nvm_reuse = perhaps\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: vm_reuse in pytest's configuration: *perhaps*"])
    pytester.makeini("")
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nvm_results = ['out']\n")
    run().stderr.fnmatch_lines(["ERROR: vm_results in pytest's configuration*"])


def test_stages_to_begin_at_are_those_of_a_laboratory() -> None:
    """The stages that `--vm-from` takes are those at which a laboratory keeps machines."""
    assert tuple(map(str, lab.REWINDS)) == REWINDS
    assert set(REWINDS) < set(Stage)


def test_targets_to_choose_from_are_those_that_have_a_laboratory() -> None:
    """Each name that `--vm-target` takes leads to what makes machines there."""
    assert tuple(LABORATORIES) == TARGETS


_NEEDY = """
import pytest
from vmtests.machine.hardware import Hardware

BIG = Hardware(memory_mib=2048)

@pytest.fixture(scope="session")
def _vmtests_machines():
    class Machines:
        def image(self, name, modules):
            print("image:", name, modules)
            return name
        def cold(self, image, hardware, test):
            import contextlib
            return contextlib.nullcontext((image, hardware and hardware.memory_mib))
    return Machines()

def test_default(cold_vm): assert cold_vm == (None, None)

@pytest.mark.vm(hardware=Hardware(memory_mib=2048))
def test_big(cold_vm): assert cold_vm == (None, 2048)

def test_default_again(cold_vm): assert cold_vm == (None, None)

@pytest.mark.vm(image="disk.raw")
class TestDisk:
    def test_image(self, cold_vm): assert cold_vm == ("disk.raw", None)

    @pytest.mark.vm(hardware=BIG)
    @pytest.mark.parametrize("number", [1, 2])
    def test_both(self, cold_vm, number): assert cold_vm == ("disk.raw", 2048)

@pytest.mark.vm(hardware=BIG)
def test_big_again(cold_vm): assert cold_vm == (None, 2048)

@pytest.mark.vm(hardware=BIG)
def test_needs_none(): pass
"""


def test_marker_says_what_a_test_needs(pytester: pytest.Pytester, run: Run) -> None:
    """A test gets the machine that its markers name, the closest first; those that need the same come together."""
    pytester.makepyfile(_NEEDY)
    result = run("-v", "-s")
    result.assert_outcomes(passed=8)
    names = [line.partition("::")[2].split(" ")[0] for line in result.outlines if "::" in line]
    assert names == [
        *("test_default", "test_default_again", "test_big", "test_big_again", "TestDisk::test_image"),
        *("TestDisk::test_both[1]", "TestDisk::test_both[2]", "test_needs_none"),
    ]
    assert result.stdout.str().count("image: None None") == 2
    assert result.stdout.str().count("image: disk.raw None") == 2


def test_marker_that_says_nothing_known_is_one_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """What a marker cannot say is an error of one sentence, before any test runs."""
    takes = "@pytest.mark.vm takes image=, modules=, hardware=, target=, promises=; not"
    sentences = {
        "memory=3": f"{takes} memory=",
        "'big'": f"{takes} 'big'",
        "modules='debug'": "@pytest.mark.vm(modules=…) takes a list of names; not 'debug'",
        "target='aws'": "@pytest.mark.vm(target=…) takes 'qemu' or 'gce'; not 'aws'",
        "target=['gce']": "@pytest.mark.vm(target=…) takes 'qemu' or 'gce'; not ['gce']",
        "modules=[1]": "@pytest.mark.vm(modules=…) takes a list of names; not [1]",
        "promises=5": "@pytest.mark.vm(promises=…) takes a list of names; not 5",
        "hardware={'cpus': 4}": "@pytest.mark.vm(hardware=…) takes a vmtests.Hardware; not {'cpus': 4}",
    }
    for number, said in enumerate(sentences):
        code = f"import pytest\n@pytest.mark.vm({said})\ndef test_{number}(vm): pass"
        pytester.makepyfile(**{f"test_{number}": code})
    result = run()
    result.assert_outcomes(errors=len(sentences))
    for number, sentence in enumerate(sentences.values()):
        assert f"test_{number}: {sentence}" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_every_machine_has_a_directory_of_its_own(tmp_path: Path) -> None:
    """Names are safe, short and nobody else's, whatever the tests are called, and however often they run."""
    tests = ["a/test_x.py::test_one", "b/test_x.py::test_one", "a/test_x.py::test_one[../../etc/passwd]"]
    tests += [f"a/test_x.py::test_{'long' * 100}", "a/test_x.py::test_it[new\nline]", "..", "t.py::T::test[.]", "ü"]
    names = []
    for test in tests * 2:
        name = free_name(tmp_path, test)
        (tmp_path / name).mkdir()
        names.append(name)
    assert len(set(names)) == len(names)
    assert names[:2] == ["test_x.test_one-1", "test_x.test_one-2"]
    assert all(len(name) < 90 and name[0] not in ".-" and name.isascii() and name.isprintable() for name in names)


_LATE = {
    "parameter": """
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.vm(image="disk.raw"))])
def test_it(cold_vm, n): pass
""",
    "unittest": """
@pytest.mark.vm(image="disk.raw")
class TestIt(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _machine(self, cold_vm): self.vm = cold_vm
    def test_it(self): pass
@pytest.mark.vm(image="disk.raw")
def test_other(cold_vm): pass
""",
}


@pytest.mark.parametrize("late", _LATE)
def test_marker_that_comes_too_late_is_one_sentence(pytester: pytest.Pytester, run: Run, late: str) -> None:
    """A test is not run on another machine than its marker says, nor is the run ended by an error of ours."""
    pytester.makepyfile("import unittest\nimport pytest\n" + _LATE[late])
    result = run()
    result.stderr.fnmatch_lines(["ERROR: *test_it*: @pytest.mark.vm counts on functions, *"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_marker_that_comes_too_late_and_says_nothing_known(pytester: pytest.Pytester, run: Run) -> None:
    """Where it does not count it is one sentence, too, and no error of ours."""
    pytester.makeconftest(
        "import pytest\ndef pytest_collection_modifyitems(items): items[0].add_marker(pytest.mark.vm('ubuntu'))"
    )
    pytester.makepyfile("def test_it(vm): pass")
    result = run()
    result.stderr.fnmatch_lines(["ERROR: *::test_it: @pytest.mark.vm takes image=, *; not 'ubuntu'"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_fixture_that_is_asked_for_too_late_is_one_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """By the request of a test nobody knows before that it needs a machine."""
    pytester.makepyfile("def test_it(request): request.getfixturevalue('vm_image')")
    result = run()
    result.stdout.fnmatch_lines(["*no test names a machine's fixture: *usefixtures*"])
    result.stdout.no_fnmatch_line("*StashKey*")
    pytester.makepyfile("import pytest\n@pytest.mark.usefixtures('vm_image')\ndef test_it(request): pass")
    run("--vm-image=none.raw").stdout.fnmatch_lines(["none.raw does not exist (hint: *)"])


def test_page_names_every_key() -> None:
    """docs/pytest.md has all that pytest's configuration may have."""
    page = (Path(__file__).parents[2] / "docs/pytest.md").read_text(encoding="utf-8")
    assert [] == [option.key for option in OPTIONS if not re.search(rf"\b{option.key}\b", page)]


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures-per-test", "--setup-plan"])
def test_run_that_only_shows_leaves_no_results(pytester: pytest.Pytester, run: Run, option: str) -> None:
    """`results/latest` stays where the last boot is."""
    pytester.makepyfile("def test_it(vm): pass")
    run(option)
    assert not (pytester.path / "results").exists()
