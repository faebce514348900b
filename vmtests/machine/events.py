"""What a machine tells besides its console."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from vmtests.text import TEXT_LIMIT, clean

RESET, SHUTDOWN, STOP, EXIT = "RESET", "SHUTDOWN", "STOP", "exit"
"""Names that the follower knows: QMP's, and `exit` for the end of the process."""

HELD = frozenset({"debug", "finish-migrate", "paused", "postmigrate"})
"""States of a machine that somebody has stopped, and lets go on (QEMU qapi/run-state.json, `RunState`)."""

_STDERR_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineEvent:
    """An event: its name, details, and when it came (seconds of the clock's `monotonic()`).

    QMP's fields are passed as they are. `STOP` needs a detail `status` (that of `query-status`), as QMP
    sends none; `exit` has `returncode` (as subprocess gives it: negative for a signal) and `stderr`.
    """

    name: str
    detail: Mapping[str, str | int | bool] = field(default_factory=dict)
    t: float

    @property
    def text(self) -> str:
        """The event in one printable line, without `stderr`."""
        details = [f" {key}={clean(str(value))}" for key, value in self.detail.items() if key != "stderr"]
        return clean(self.name + "".join(details))

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines of `stderr`, printable."""
        text = str(self.detail.get("stderr", ""))[-16 * TEXT_LIMIT :]
        return tuple(clean(line) for line in text.splitlines() if line.strip())[-_STDERR_LINES:]

    @property
    def values(self) -> dict[str, str | None]:
        """The details as a sentence needs them; `exit` has also `how` it ended and its `last` words."""
        values: dict[str, str | None] = {key: clean(str(value)) for key, value in self.detail.items()}
        if self.name == EXIT:
            values["how"] = _ending(self.detail.get("returncode"))
            values["last"] = f": {self.stderr[-1]}" if self.stderr else ""
        return values


def _ending(returncode: object) -> str:
    if not isinstance(returncode, int):
        return "ended"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}"
