"""What stands around the command line: examples, completion, the man page, GitHub's action, GitLab's component."""

import io
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from docs import make_man
from vmtests import cli
from vmtests.cli import command
from vmtests.cli.examples import EXAMPLES

ROOT = Path(__file__).parents[2]


def calls() -> list[list[str]]:
    """Return the words of each call of `vmtests` in the examples."""
    lines = [line for text in EXAMPLES.values() for line in text.splitlines()]
    words = [shlex.split(line.split("| ")[-1].split(" > ")[0]) for line in lines]
    assert all(call[0] == "vmtests" for call in words)
    return [call[1:] for call in words]


@pytest.mark.parametrize("call", calls(), ids=" ".join)
def test_every_example_is_a_command(call: list[str]) -> None:
    """The parser takes each example of `--help`."""
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            command.parser(call).parse_args(call)
    except SystemExit:
        pytest.fail(told.getvalue())


def test_every_command_has_examples() -> None:
    """None is left without."""
    assert set(EXAMPLES) == set(command.COMMANDS)


@pytest.mark.parametrize(("shell", "check"), [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish --no-execute")])
def test_completion_is_a_script_of_its_shell(shell: str, check: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names commands and options; the shell itself reads it, where it is here."""
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "no-slower" in script
    assert "bisect" in script
    if shutil.which(shell):
        told = subprocess.run(check.split(), input=script, text=True, capture_output=True, check=False)
        assert (told.returncode, told.stderr) == (0, "")


def test_bash_completes_a_command() -> None:
    """In a real bash `vmtests bi` becomes `vmtests bisect`."""
    script = (
        f"source <({shlex.quote(sys.executable)} -m vmtests.cli completion bash); "
        "COMP_WORDS=(vmtests bi); COMP_CWORD=1; _shtab_vmtests; echo ${COMPREPLY[@]}"
    )
    told = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True, cwd=ROOT)
    assert told.stdout.split() == ["bisect"]


def test_man_page_is_what_the_command_line_says() -> None:
    """`make docs` has been called since it changed."""
    assert make_man.PAGE.read_text(encoding="utf-8") == make_man.page(), "make docs"


def load(path: Path) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(YAML(typ="safe", pure=True).load_all(path))


def test_no_input_of_the_action_is_a_part_of_a_script() -> None:
    """No input is put into a script, where it could be anything."""
    (action,) = load(ROOT / "action.yml")
    assert not [step for step in action["runs"]["steps"] if "${{" in step.get("run", "")]


def test_boot_step_of_the_action_ends_as_the_boot_does(tmp_path: Path) -> None:
    """Its script, with a boot that fails in the place of vmtests: status, output and summary are there."""
    (action,) = load(ROOT / "action.yml")
    script = next(step["run"] for step in action["runs"]["steps"] if step.get("id") == "boot")
    place = tmp_path / "vmtests/bin"
    place.mkdir(parents=True)
    (place / "vmtests").write_text(
        '#!/bin/sh\nif [ $1 = boot ]; then mkdir -p $4; echo \'{"verdict": "failed"}\' > $4/verdict.json; '
        'echo "$@" > $4/called; exit 1; fi\necho "### failed"\n'
    )
    (place / "vmtests").chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin",
        "RUNNER_TEMP": str(tmp_path),
        "IMAGE": "my disk.raw",
        "ARGUMENTS": "--memory\n2G\n",
        "RESULTS": "out",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    ended = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=environment, check=False)
    assert ended.returncode == 1
    assert (tmp_path / "output").read_text() == "verdict=failed\n"
    assert (tmp_path / "summary").read_text() == "### failed\n"
    assert (tmp_path / "out/called").read_text() == "boot my disk.raw --results out --memory 2G\n"


def test_gitlab_component_has_a_job_that_boots() -> None:
    """Two documents: what it is given, and a job; GitLab's schema takes the job."""
    spec, jobs = load(ROOT / "templates/boot.yml")
    assert set(spec["spec"]["inputs"]) == {"image", "stage", "source", "arguments"}
    assert "vmtests boot" in jobs["vmtests-boot"]["script"][0]
