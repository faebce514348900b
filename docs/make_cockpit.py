"""Records the cockpit in tmux as docs/cockpit.svg, at a real boot (`make cockpit`), and holds it to what it shows.

Stages move, the verdict appears, the line takes typing and is given back, the machine is kept and gone back to; then
the guest is killed, and the cockpit of another boot, and each time the terminal is as it was.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from signal import SIGKILL

import pyte

OUT = Path(__file__).with_name("cockpit.svg")
COLUMNS, LINES = 100, 34
_LABEL = (
    "The cockpit: stages, the machine kept, the verdict, the line taken and given back, going back, a guest killed"
)
_WIDE, _HIGH, _SECONDS = 7.22, 14, 3
_PATIENCE = 240.0  # seconds: without KVM, on a host with other work
_COLOURS = {
    "default": "#d8dee9", "black": "#5c6370", "red": "#f38ba8", "green": "#a6da95", "brown": "#eed49f",
    "blue": "#8aadf4", "magenta": "#c6a0f6", "cyan": "#8bd5ca", "white": "#d8dee9",
}  # fmt: skip


@dataclass(slots=True)
class Terminal:
    """A terminal of tmux with a shell in it, and what was seen there."""

    directory: Path
    frames: list[str] = field(default_factory=list)

    def __enter__(self) -> "Terminal":
        """Begin."""
        shell = f"env PATH={Path(sys.executable).parent}:{os.environ['PATH']} PS1='$ ' bash --norc --noprofile"
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", "s", *size, "-c", str(self.directory), shell)
        self.until("$")
        return self

    def __exit__(self, *_: object) -> None:
        """End the shell, and what runs in it."""
        self.tmux("kill-server")

    def tmux(self, *words: str) -> str:
        """Call tmux."""
        command = ["tmux", "-S", str(self.directory / "tmux"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names; a text is typed."""
        self.tmux("send-keys", "-t", "s", *keys)

    def until(self, text: str, *, there: bool = True) -> None:
        """Wait until a text is there, or no more."""
        end = time.monotonic() + _PATIENCE
        while (text in (shown := self.tmux("capture-pane", "-p", "-t", "s"))) is not there:
            if time.monotonic() > end:
                sys.exit(f"{text!r} did not {'come' if there else 'go'}:\n{shown}")
            time.sleep(0.1)

    def keep(self, text: str = "") -> None:
        """Wait for a text, and keep what is seen then."""
        self.until(text)
        shown = self.tmux("capture-pane", "-p", "-e", "-t", "s")
        self.frames.append(shown.replace(f"{self.directory}/", ""))  # which nobody else has

    def below(self, name: str) -> int:
        """Return the process of that name that the shell's began."""
        shell = int(self.tmux("display", "-p", "-t", "s", "#{pane_pid}"))
        found = [pid for pid in _descendants(shell) if _name(pid).startswith(name)]
        if len(found) != 1:
            sys.exit(f"there are {len(found)} processes {name}")
        return found[0]

    def settings(self) -> tuple[str, str]:
        """Return what the shell shows of what is typed and of the terminal's settings, and what tmux says of both."""
        self.type("clear", "Enter")
        self.until("42-seen", there=False)
        self.type("stty -a | cksum; echo $((6*7))-seen", "Enter")
        self.until("\n42-seen")
        shown = self.tmux("capture-pane", "-p", "-t", "s").partition("\n42-seen")[0]
        return shown, self.tmux("display", "-p", "-t", "s", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")


def _descendants(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, thread.read_text(encoding="ascii").split()):
            yield child
            yield from _descendants(child)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")


def record(terminal: Terminal) -> None:
    """Boot, and do what the page says."""
    before = terminal.settings()
    terminal.type("clear; vmtests boot reference", "Enter")
    for stage in ("bootloader", "kernel"):
        terminal.keep(f"▶ {stage}")
    terminal.until("▶ initrd")
    terminal.type("s")
    terminal.keep("kept: 1: ")
    terminal.keep("▶ userspace")
    terminal.keep(" ready: ")
    terminal.type("t")
    terminal.until("Ctrl-] gives it back")
    terminal.until("-bash-")  # what comes before it, login eats
    terminal.type("echo taken-$((6*7)); uname -r", "Enter")
    terminal.keep("│taken-42")
    terminal.type("C-]")
    terminal.until("given back")
    terminal.type("r")
    terminal.keep("go back to")
    terminal.type("Enter")
    terminal.keep("▶ initrd")  # where it was kept
    os.kill(terminal.below("qemu-system"), SIGKILL)
    terminal.keep("QEMU was killed by SIGKILL")
    terminal.type("q")
    terminal.keep("\nresults: ")
    if (after := terminal.settings()) != before:
        sys.exit(f"after the guest was killed the terminal is not as it was: {before}, {after}")
    terminal.type("clear; vmtests boot reference", "Enter")
    terminal.until("▶ kernel")
    guest = terminal.below("qemu-system")
    os.kill(terminal.below("vmtests"), SIGKILL)
    # The screen that was before. A shell that was quicker has said `Killed` on the other one.
    terminal.until("booting reference with")
    terminal.type("echo the shell has its terminal", "Enter")
    terminal.until("\nthe shell has its terminal")
    if (after := terminal.settings()) != before:
        sys.exit(f"after the cockpit was killed the terminal is not as it was: {before}, {after}")
    if Path(f"/proc/{guest}").exists():
        sys.exit("the machine did not end with the cockpit")


def draw(frames: Sequence[str]) -> str:
    """Return the frames as one SVG that shows each for a while, and the last where nothing may move."""
    wide, high = round(COLUMNS * _WIDE), LINES * _HIGH
    share = 100 / len(frames)
    style = (
        'text{font:12px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}'
        f"g.f{{visibility:hidden;animation:s {_SECONDS * len(frames)}s step-end infinite}}"
        f"@keyframes s{{0%{{visibility:visible}}{share:.3f}%{{visibility:hidden}}}}"
        "@media(prefers-reduced-motion:reduce){g.f{animation:none}g.last{visibility:visible}}"
    )
    box = f'x="-8" y="-8" width="{wide + 16}" height="{high + 16}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {wide + 16} {high + 16}" role="img"',
        f' aria-label="{_LABEL}"><style>{style}</style><rect {box} rx="6" fill="#16181a"/>',
    ]
    for number, frame in enumerate(frames):
        last = " last" if number == len(frames) - 1 else ""
        parts.append(f'<g class="f{last}" style="animation-delay:{number * _SECONDS}s">{_rows(frame)}</g>')
    return "".join((*parts, "</svg>\n"))


def _rows(frame: str) -> str:
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.Stream(screen).feed(frame.rstrip("\n").replace("\n", "\r\n"))
    parts = []
    for y in range(LINES):
        x = 0
        for (colour, ground, bold), run in groupby(
            (screen.buffer[y][n] for n in range(COLUMNS)), key=lambda cell: (cell.fg, cell.bg, cell.bold)
        ):
            text = "".join(cell.data for cell in run)
            if ground != "default":
                size = f'width="{len(text) * _WIDE:.1f}" height="{_HIGH}"'
                parts.append(f'<rect x="{x * _WIDE:.1f}" y="{y * _HIGH}" {size} fill="{_colour(ground)}"/>')
            # Each run has its place and length, as fonts are not all as wide.
            at = x + len(text) - len(text.lstrip())
            if drawn := text.strip():
                weight = ' font-weight="bold"' if bold else ""
                place = f'x="{at * _WIDE:.1f}" y="{y * _HIGH + 11}" textLength="{len(drawn) * _WIDE:.1f}"'
                parts.append(f'<text {place} fill="{_colour(colour)}"{weight}>{escape(drawn)}</text>')
            x += len(text)
    return "".join(parts)


def _colour(name: str) -> str:
    return _COLOURS.get(name, f"#{name}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Terminal(Path(name)) as seen:
        record(seen)
        OUT.write_text(draw(seen.frames), encoding="utf-8")
