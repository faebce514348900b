"""The inits of guests: by what each is known in one that is up, and how it is asked for its services.

Another init is another row here; what it says on the console is a file in `boot/speakers/`.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from vmtests.guest.facts import Facts
from vmtests.guest.result import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What became of a service: whether the init knows it, whether it is up, and how the init puts that.

    One that was to run once, and ended well, is up.
    """

    there: bool
    up: bool
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """An init. `here` is the shell command that succeeds where it started the guest; `shown` one for people.

    `failed` gives the names of services that failed, none where the init keeps no account of them; `up` of those that
    run; `service` says what became of one. All three raise GuestError when the guest cannot be asked.
    """

    name: str
    source: str
    """Where the commands are documented."""
    here: str
    shown: str
    failed: Callable[[Runner], tuple[str, ...]]
    up: Callable[[Runner], tuple[str, ...]]
    service: Callable[[Runner, str], Service]


def find(runner: Runner) -> Init | None:
    """Return the init that started the guest; None when it is none of those known. Raises GuestError."""
    return next((init for init in INITS if runner.run(init.here).ok), None)


def first_process(runner: Runner) -> str:
    """Return the name of the guest's first process, for sentences; raises GuestError."""
    return runner.run("cat /proc/1/comm").stdout.strip() or "a process without a name"


def _lists(command: str) -> Callable[[Runner], tuple[str, ...]]:
    """Return what runs a command that prints a name on each line."""

    def names(runner: Runner) -> tuple[str, ...]:
        lines = (line.strip() for line in runner.run(command).stdout.splitlines())
        return tuple(dict.fromkeys(filter(None, lines)))

    return names


def _no_account(_: Runner) -> tuple[str, ...]:
    return ()


def _asks(known: str, status: str) -> Callable[[Runner, str], Service]:
    """Return what runs two commands with a service's name for `{}`: they succeed when it is there, and when it is up.

    What the second prints is how the init puts it.
    """

    def service(runner: Runner, name: str) -> Service:
        quoted = shlex.quote(name)
        if not runner.run(known.replace("{}", quoted)).ok:
            return Service(there=False, up=False, words="not found")
        result = runner.run(status.replace("{}", quoted))
        said = [line.strip(" *\t") for line in result.stdout.splitlines() if line.strip(" *\t")]
        return Service(there=True, up=result.ok, words=_words(said, result.exit_code))

    return service


def _words(said: list[str], exit_code: int) -> str:
    return said[-1].removeprefix("status: ") if said else f"exit status {exit_code}"


_SHOW = "systemctl show --property=Id,LoadState,ActiveState,Result,ExecMainExitTimestampMonotonic -- "


def _systemd_failed(runner: Runner) -> tuple[str, ...]:
    return tuple(unit.name for unit in Facts(runner).units().failed)


def _systemd_up(runner: Runner) -> tuple[str, ...]:
    return tuple(name for name, unit in Facts(runner).units().items() if unit.active == "active")


def _systemd_unit(runner: Runner, name: str) -> Service:
    """Return what became of a unit; of a pattern that several fit, of one that is not up where there is such."""
    shown = runner.run(f"{_SHOW}{shlex.quote(name)}").check().stdout.strip()
    found = [_of_block(block) for block in shown.split("\n\n")]
    return next((service for service in found if not (service.there and service.up)), found[0])


def _of_block(block: str) -> Service:
    told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    state, result, load = (told.get(key, "") for key in ("ActiveState", "Result", "LoadState"))
    ended = state == "inactive" and result == "success" and told.get("ExecMainExitTimestampMonotonic", "0") != "0"
    if load != "loaded":
        return Service(there=False, up=False, words=load or "unknown")
    return Service(there=True, up=state == "active" or ended, words=f"{state}, {result}")


def _first_process_is(name: str) -> str:
    return f'[ "$(cat /proc/1/comm)" = {name} ]'


_OF_RUNIT = "/service/* /etc/service/* /var/service/*"
_LIST_OF_DINIT = r"dinitctl list | sed 's/^\[[^]]*\] *//; s/ (.*//'"

INITS: tuple[Init, ...] = (
    Init(
        name="systemd",
        source="sd_booted(3), systemctl(1)",
        here="test -d /run/systemd/system",
        shown="systemctl list-units --all --full --no-pager --no-legend",
        failed=_systemd_failed,
        up=_systemd_up,
        service=_systemd_unit,
    ),
    Init(
        name="OpenRC",
        source="rc-status(8), rc-service(8), openrc src/librc/librc.c (the directories of /run/openrc)",
        here="test -e /run/openrc/softlevel",
        shown="rc-status --all",
        failed=_lists("ls /run/openrc/failed; rc-status --crashed"),
        up=_lists("ls /run/openrc/started"),
        service=_asks("rc-service --exists {}", "rc-service {} status"),
    ),
    Init(
        name="runit",
        source="sv(8), runsvdir(8)",
        here=_first_process_is("runit"),
        shown=f"sv status {_OF_RUNIT}",
        failed=_lists(f"sv status {_OF_RUNIT} 2>&1 | sed -n 's,^down: [^:]*/\\([^/:]*\\):.* want up.*,\\1,p'"),
        up=_lists(f"sv status {_OF_RUNIT} 2>&1 | sed -n 's,^run: [^:]*/\\([^/:]*\\):.*,\\1,p'"),
        service=_asks(
            "[ -d /service/{} ] || [ -d /etc/service/{} ] || [ -d /var/service/{} ]",
            "sv status {}; sv status {} | grep -q '^run:'",
        ),
    ),
    Init(
        name="dinit",
        source="dinitctl(8)",
        here=_first_process_is("dinit"),
        shown="dinitctl list",
        failed=_lists(f'{_LIST_OF_DINIT} | while read -r n; do dinitctl is-failed "$n" >/dev/null && echo "$n"; done'),
        up=_lists(f'{_LIST_OF_DINIT} | while read -r n; do dinitctl is-started "$n" >/dev/null && echo "$n"; done'),
        service=_asks("dinitctl status {}", "dinitctl is-started {}"),
    ),
    Init(
        name="s6-rc",
        source="skarnet.org's pages on s6-rc and s6-rc-db",
        here="test -e /run/s6-rc",
        shown="s6-rc -a list",
        failed=_no_account,
        up=_lists("s6-rc -a list"),
        service=_asks("s6-rc-db type {}", "s6-rc -a list | grep -qxF -- {} || { echo down; false; }"),
    ),
    Init(
        name="sysvinit",
        source="Linux Standard Base 5.0, Init Script Actions; initctl(5)",
        here="{ [ -p /run/initctl ] || [ -p /dev/initctl ]; } && [ -d /etc/init.d ]",
        shown="service --status-all",
        failed=_no_account,
        up=_lists("service --status-all 2>&1 | sed -n 's/^ *\\[ + \\] *//p'"),
        service=_asks("test -x /etc/init.d/{}", "/etc/init.d/{} status"),
    ),
)
"""In the order in which they are looked for: some start what is called after another."""


SHOWN = f"{'; el'.join(f'if {init.here}; then {init.shown}' for init in INITS)}; fi"
"""A shell command that shows the services of whichever init is there, for people."""
