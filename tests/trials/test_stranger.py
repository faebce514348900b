"""The README's example, as a stranger has it: against the wheel, type-checked strictly, and run."""

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[2]

_FAKES = """
import pytest
import vmtests.testing

ANSWERS = {
    "touch /nix/store/x": vmtests.Result(
        command="touch", stdout="", stderr="Read-only file system", exit_code=1, duration=0.0
    ),
    "rm -rf /var/lib/*": "",
    "cat /proc/self/mountinfo": "26 1 8:3 / / rw,relatime shared:1 - ext4 /dev/sda3 rw\\n",
}

@pytest.fixture
def vm():
    assert "site-packages" in vmtests.__file__, vmtests.__file__
    with vmtests.testing.FakeVm(answers=ANSWERS) as vm:
        vm.wait_ready()
        yield vm

@pytest.fixture
def fresh_vm(vm):
    return vm

@pytest.fixture
def cold_vm(vm):
    return lambda hardware=None, modules=None, *, ready=True: vm
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which only the wheel is installed, and what it depends on."""
    work = tmp_path_factory.mktemp("stranger")
    with contextlib.chdir(ROOT):  # as whoever installs it does (PEP 517)
        wheel = work / build_wheel(str(work))
    venv.create(work / "venv", symlinks=True)
    (site,) = (work / "venv/lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # A path within a .pth file is searched, and .pth files there are not followed: the checkout is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return work / "venv/bin/python"


@pytest.fixture(scope="module")
def example(stranger: Path) -> Path:
    """The example, in a directory of its own."""
    directory = stranger.parents[1] / "tests"
    directory.mkdir()
    (code,) = re.findall(r"## In your own tests\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert 15 <= len(code.splitlines()) <= 30
    (directory / "test_example.py").write_text(code)
    return directory


def _run(directory: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_wheel_has_all_of_the_fixtures(stranger: Path) -> None:
    """What a checkout reads there is there in an installed package, too."""
    (installed,) = stranger.parents[1].glob("lib/python*/site-packages/vmtests/fixtures")
    there = {path.relative_to(installed) for path in installed.rglob("*")}
    assert {path.relative_to(ROOT / "fixtures") for path in (ROOT / "fixtures").rglob("*")} == there


def test_example_is_typed(stranger: Path, example: Path, pytestconfig: pytest.Config) -> None:
    """mypy --strict finds nothing wrong in it, and knows the types: a wrong use of a result is found."""
    (example / "wrong.py").write_text(
        "from vmtests import Vm\n\n\ndef code(vm: Vm) -> str:\n    return vm.run('true').exit_code\n"
    )
    # What the wheel depends on takes a minute to analyse, and no public name is of its types.
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("cryptography", "google", "rich"))
    (example / "mypy.ini").write_text(f"[mypy]\n{skipped}")
    # What is the same in the next run's wheel (mypy compares contents) is not analysed again.
    cache = os.devnull if pytestconfig.cache is None else pytestconfig.cache.mkdir("wheel")
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", stranger, "--cache-dir", cache)
    with pytest.raises(AssertionError) as found:
        _run(example, *mypy, "test_example.py", "wrong.py")
    told = str(found.value)
    assert 'wrong.py:5: error: Incompatible return value type (got "int", expected "str")' in told
    assert "Found 1 error in 1 file (checked 2 source files)" in told


def test_example_runs(stranger: Path, example: Path) -> None:
    """The tests of the example pass, with a fake machine in the place of each real one."""
    (example / "conftest.py").write_text(_FAKES)
    assert "3 passed" in _run(example, stranger, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "test_example.py")
