"""A run with tests that need machines: its results, and how their failures are told. Other runs never import this."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from vmtests.errors import HOST_ERRORS, Owner, VmtestsError, of_host
from vmtests.guest.guest import NoWayInError
from vmtests.plugin.forms import Forms
from vmtests.text import inert
from vmtests.vm import BootError, Laboratory, Vm

_PLUGIN = "vmtests-run"


class Run:
    """The directory of results, the machines at hand for --vm-console, and the failures that were told already."""

    def __init__(self, config: pytest.Config, results: Path) -> None:
        self._config = config
        self.results = results
        self._machines: list[tuple[Vm, Laboratory]] = []
        self._see_above: dict[BaseException, str] = {}
        self._owners: dict[BaseException, Owner] = {}
        self._told: set[BaseException] = set()
        self._unwritten: list[str] = []
        self._interrupted = self._summed_up = False
        self.forms = Forms(config, results, self._owners)

    @classmethod
    def begin(cls, config: pytest.Config, results: Path) -> Self:
        """Begin it in this process, or return the one that was begun."""
        if (begun := config.pluginmanager.getplugin(_PLUGIN)) is not None:
            assert isinstance(begun, cls)
            return begun
        run = cls(config, results)
        config.pluginmanager.register(run, _PLUGIN)
        config.pluginmanager.register(run.forms, f"{_PLUGIN}-forms")
        if threading.current_thread() is threading.main_thread():
            # A program that runs pytest in its own process (`pytest.main`) goes on afterwards as it was.
            config.add_cleanup(_restorer())
            # What ends a process politely ends its machines, removes their files, and instances that cost money.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) has it
                signal.signal(signal.SIGHUP, signal.default_int_handler)
            # Some that start others ignore it, and then nobody's end can be waited for.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Others block what ends it, and their children inherit that (sigprocmask(2)).
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        if not hasattr(config, "workerinput"):
            _begin_junit(config, results / "junit.xml", run._unwritten.append)
        return run

    @contextlib.contextmanager
    def uncaptured(self) -> Iterator[None]:
        """Give a context without capture, so that progress is seen; an error of ours fails the test by its text."""
        with self._capture_suspended(), self._one_line():
            yield

    @contextlib.contextmanager
    def _capture_suspended(self) -> Iterator[None]:
        manager = self._config.pluginmanager.getplugin("capturemanager")
        with contextlib.nullcontext() if manager is None else manager.global_and_fixture_disabled():
            yield

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """Report an error of vmtests as its sentence; the traceback would be of the framework."""
        try:
            yield
        except BootError as error:
            told, see_above, owner = error.report, "boot failed: see above", error.owner
        except (VmtestsError, *HOST_ERRORS) as error:
            if (ours := error if isinstance(error, VmtestsError) else of_host(error)) is None:
                raise
            told, see_above, owner = str(ours), "no machine: see above", ours.owner
        else:
            return
        try:
            pytest.fail(told, pytrace=False)
        except pytest.fail.Exception as failure:
            self._see_above[failure] = see_above
            self._owners[failure] = owner
            raise failure from None

    @contextlib.contextmanager
    def at_hand(self, vm: Vm, lab: Laboratory) -> Iterator[None]:
        """Have a laboratory's machine at hand for --vm-console as long as it is there, ready or not."""
        self._machines.append((vm, lab))
        try:
            yield
        except pytest.fail.Exception as failure:
            if failure in self._see_above:
                self._visit(str(failure.msg))
            raise
        finally:
            self._machines.remove((vm, lab))

    def _visit(self, why: str) -> None:
        """With --vm-console open the cockpit at the machine that was made last."""
        if self._config.getoption("vm_console") and self._machines:
            from vmtests.cockpit.visit import visit

            with self._capture_suspended():
                visit(*self._machines[-1], why)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Tell the failure of a fixture once; each further test that needed it is an error of one line."""
        from vmtests.plugin import is_ours

        report = yield
        if call.excinfo is not None:
            if report.failed and call.when != "teardown" and is_ours(item):
                self._visit(call.excinfo.exconly())
            self._tell(report, call.excinfo.value)
        if is_ours(item):
            _make_inert(report)
        return report

    def _tell(self, report: pytest.TestReport, error: BaseException) -> None:
        if report.failed and isinstance(error, NoWayInError):
            report.longrepr = error.message if error.hint is None else f"{error.message} (hint: {error.hint})"
        if error in self._see_above:
            if error in self._told:
                report.longrepr = self._see_above[error]
            self._told.add(error)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the page of the run, and say where the results are."""
        self._summed_up = True
        if (told := self._report()) is not None:
            terminalreporter.write_line(f"report: {told}")
        for why in self._unwritten:
            terminalreporter.write_line(f"junit.xml: none: {why}")
        terminalreporter.write_line(f"results: {self.results}")
        self.forms.tell_github(terminalreporter)

    def _report(self) -> str | None:
        """Write the page of the run; return where it is, or why there is none; None where no machine was booted."""
        from vmtests.report.record import NoBootError

        try:
            from vmtests.report import page

            return str(page.write(self.results))
        except NoBootError:
            return None
        except VmtestsError as error:
            return f"none: {error.message}"
        except KeyboardInterrupt:
            self._interrupted = True
            return "none: interrupted"
        except HOST_ERRORS as error:
            if (host := of_host(error)) is None:
                raise
            return f"none: {host.message}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """End as interrupted when it is the report that was; without a terminal (`-p no:terminal`) write it here."""
        result = yield
        if not self._summed_up and not hasattr(self._config, "workerinput"):
            self._report()
            self.forms.tell_github(None)
        if self._interrupted:
            pytest.exit("interrupted while the report was written", returncode=pytest.ExitCode.INTERRUPTED)
        return result


def _make_inert(report: pytest.TestReport) -> None:
    """Have nothing in a report that is an order to a CI runner: assertions show what a guest said."""
    report.sections = [(name, inert(text)) for name, text in report.sections]
    told: Any = report.longrepr
    if isinstance(told, str):
        report.longrepr = inert(told)
    alone = ((getattr(told, "reprtraceback", None), getattr(told, "reprcrash", None), None),)  # with --tb=native
    for traceback, crash, _ in getattr(told, "chain", alone):
        for entry in getattr(traceback, "reprentries", ()):
            for part in filter(None, (entry, getattr(entry, "reprlocals", None))):
                part.lines = [inert(line) for line in part.lines]
        if crash is not None:
            crash.message = inert(crash.message)


def _restorer() -> Callable[[], None]:
    """Return what puts the signals back as they are now."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    handlers = {number: found for number in numbers if (found := signal.getsignal(number)) is not None}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    return restore


def _begin_junit(config: pytest.Config, path: Path, unwritten: Callable[[str], None]) -> None:
    """Have pytest's own plugin write `path` too, unless it is not there or writes elsewhere.

    Where it cannot be written `unwritten` is told why: pytest would say no more of the run.
    """
    plugins = config.pluginmanager
    if (junit := plugins.getplugin("junitxml")) is None or config.option.xmlpath:
        return
    config.option.xmlpath = str(path)
    before = plugins.get_plugins()
    junit.pytest_configure(config)
    for log in plugins.get_plugins() - before:
        # It begins now, and not with the session, of which nothing was known to need a machine.
        log.pytest_sessionstart()
        plugins.unregister(log)
        write = log.pytest_sessionfinish

        def finish(write: Callable[[], None] = write, log: object = log) -> None:
            try:
                write()
            except HOST_ERRORS as error:
                if (host := of_host(error)) is None:
                    raise
                unwritten(host.message)
                with contextlib.suppress(OSError):
                    path.unlink()  # half of it is nothing that can be read
                # It would say that it was written.
                plugins.unregister(log)
                del config.stash[junit.xml_key]

        log.pytest_sessionfinish = finish
        plugins.register(log)
