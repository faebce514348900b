"""A run in the forms that others read: junit's properties, pytest-html's extras, GitHub's annotations and summary.

And with pytest-rerunfailures: a test of ours is run again only where host or cloud was at fault.
"""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from vmtests.errors import HOST_ERRORS, Owner, VmtestsError, of_host
from vmtests.report import summary
from vmtests.report.record import MACHINE
from vmtests.text import printable
from vmtests.vm import Vm

_CONSOLE = 64 << 10  # bytes of a console that go into a page
_ANNOTATIONS = 10  # that GitHub shows of a step
_AGAIN = frozenset({Owner.HOST, Owner.CLOUD})


class Forms:
    """Follows the tests of a run; `owners` says of an error that was told whose fault it is."""

    def __init__(self, config: pytest.Config, results: Path, owners: dict[BaseException, Owner]) -> None:
        self._config = config
        self._results = results
        # All processes of a run share one report.
        self._base = results.parent if hasattr(config, "workerinput") else results
        self._owners = owners
        self._had: dict[str, set[str]] = {}
        self._bad: list[pytest.TestReport] = []

    def had(self, test: str, machine: Vm) -> None:
        """Note that a test, by its node id, had a machine of its own."""
        self._had.setdefault(test, set()).add(self._named(machine))

    def _named(self, machine: Vm) -> str:
        try:
            name = machine.results.relative_to(self._base).as_posix()
        except ValueError:
            name = machine.results.name
        return "" if name == "." else name

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give a report what others read; tryfirst, so that pytest-rerunfailures has said its word before."""
        from vmtests.plugin import is_ours

        if not is_ours(item):
            return (yield)
        machines = {self._named(value) for value in getattr(item, "funcargs", {}).values() if isinstance(value, Vm)}
        for name in sorted(machines | self._had.get(item.nodeid, set())):
            if (MACHINE, name) not in item.user_properties:
                item.user_properties.append((MACHINE, name))
        report = yield
        if report.failed:
            self._show(report, machines)
            if call.excinfo is not None and self._owner(call.excinfo.value) not in _AGAIN:
                self._do_not_run_again(item, report.when)
        return report

    def _owner(self, error: BaseException) -> Owner:
        if error in self._owners:
            return self._owners[error]
        return error.owner if isinstance(error, VmtestsError) else Owner.IMAGE

    def _do_not_run_again(self, item: pytest.Item, when: str) -> None:
        """Have pytest-rerunfailures take the failure for final, unless the test itself says that it is flaky."""
        final = getattr(item, "_terminal_errors", None)  # its own; a test sees that it still asks it
        if isinstance(final, dict) and item.get_closest_marker("flaky") is None:
            final[when] = True

    def _show(self, report: pytest.TestReport, machines: set[str]) -> None:
        """Attach the console, and a link to the report, where pytest-html makes a page."""
        if not self._config.pluginmanager.hasplugin("html") or not getattr(self._config.option, "htmlpath", None):
            return
        from pytest_html import extras

        found: list[Any] = [extras.url((self._base / "report.html").as_uri(), name="boot report")]
        for name in sorted(machines):
            with contextlib.suppress(OSError):
                data = (self._base / name / "console.log").read_bytes()[-_CONSOLE:]
                lines = data.decode("utf-8", "replace").splitlines()
                text = "\n".join(printable(line, 2000) for line in lines)
                found.append(extras.text(text, name=f"console {name}".strip()))
        report.extras = [*getattr(report, "extras", []), *found]  # type: ignore[attr-defined]

    # In the process that writes the results.

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what failed."""
        if report.failed:
            self._bad.append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Say in junit.xml what was booted, before it is written."""
        if hasattr(self._config, "workerinput") or not getattr(self._config.option, "xmlpath", None):
            return
        log = next((p for p in self._config.pluginmanager.get_plugins() if hasattr(p, "add_global_property")), None)
        if log is None:
            return
        try:
            for name, value in summary.properties(self._results).items():
                log.add_global_property(name, value)
        except HOST_ERRORS as error:  # the summary on the terminal says so
            if of_host(error) is None:
                raise

    def tell_github(self, terminalreporter: pytest.TerminalReporter | None) -> None:
        """Annotate a pull request, and write the job's summary, where GitHub Actions runs this.

        Workflow commands are escaped as its toolkit does (packages/core/src/command.ts).
        """
        if os.environ.get("GITHUB_ACTIONS") != "true" or hasattr(self._config, "workerinput"):
            return
        for report in self._bad[:_ANNOTATIONS]:
            if terminalreporter is None:
                break
            path, line, _ = report.location
            # pytest names files from its rootdir on, GitHub from the repository's, in which that may be a directory.
            root = self._config.rootpath
            where = os.path.relpath(root / path, os.environ.get("GITHUB_WORKSPACE") or root)
            where = _escaped(where, inside=True)
            title = _escaped(report.nodeid.partition("::")[2], inside=True)
            told = _escaped(_sentence(report))
            terminalreporter.write_line(f"::error file={where},line={(line or 0) + 1},title={title}::{told}")
        if place := os.environ.get("GITHUB_STEP_SUMMARY"):
            with contextlib.suppress(OSError), Path(place).open("a", encoding="utf-8", errors="replace") as file:
                file.write(self.summary())

    def summary(self) -> str:
        """Return the run as Markdown; nothing that a guest printed is markup."""
        return summary.markdown(self._results, [(bad.nodeid, _sentence(bad)) for bad in self._bad])


def _sentence(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr) if crash is None else str(crash.message)
    first = next((line for line in text.splitlines() if line.strip()), "")
    return printable(first.removeprefix("Failed: ").strip(), 600)


def _escaped(text: str, *, inside: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if inside else text
