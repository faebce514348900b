"""Following a boot: from the bytes of a console and the events of a machine to stages and a verdict."""

from vmtests.boot.budgets import Budgets, load_factor
from vmtests.boot.clock import Clock, SystemClock
from vmtests.boot.console import ConsoleLog, Line
from vmtests.boot.follow import Follower
from vmtests.boot.scanner import ScannedLine, Scanner
from vmtests.boot.stages import NormalLine, Stage, normalise
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.machine.events import MachineEvent

__all__ = [
    "Budgets",
    "Cause",
    "Clock",
    "ConsoleLog",
    "Evidence",
    "Follower",
    "Line",
    "MachineEvent",
    "NormalLine",
    "ScannedLine",
    "Scanner",
    "Stage",
    "SystemClock",
    "Timeline",
    "Verdict",
    "load_factor",
    "normalise",
]
