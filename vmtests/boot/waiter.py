"""Who waits for a line of the console."""

import re

from vmtests.boot.console import Line


class Waiter:
    """Somebody who waits for a line; `found` is the first that came."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.found: Line | None = None

    def look(self, line: Line) -> None:
        """Take a line."""
        if self.found is None and self.pattern.search(line.text):
            self.found = line
