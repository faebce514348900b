"""The screen: stages above, the console below, the verdict between them, and keys.

Nothing that a guest wrote is ever markup: it is shown as `Text`, after `boot.scanner` has made it printable.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, OptionList, RichLog, Static
from textual.widgets.option_list import Option

from vmtests.boot.stages import Stage
from vmtests.cockpit import picture
from vmtests.cockpit.keys import GIVE_BACK
from vmtests.cockpit.line import COLUMNS, LINES, Line
from vmtests.cockpit.port import Act, Cockpit, Row, State, Taken, Told, Way
from vmtests.errors import VmtestsError
from vmtests.text import printable

TICK = 0.2  # seconds; without KVM the guest needs the processors more
_SHOWN = 5000  # lines
_PER_TICK = 400
_SCROLLBAR = 1  # columns
_BAR = 16  # characters of a stage's bar, which is full at the end of its budget

_STYLES = {
    Stage.FIRMWARE: "magenta",
    Stage.BOOTLOADER: "blue",
    Stage.KERNEL: "cyan",
    Stage.INITRD: "yellow",
    Stage.SWITCH_ROOT: "bright_magenta",
    Stage.USERSPACE: "bright_blue",
    Stage.READY: "green",
}
_AT_ONCE, _AGAIN, _KEEPS = "  kept: at once", "  boots again", ", and keeps a machine there"
_WORDS = {"ready": "green", "failed": "red", "unknown": "yellow"}


class Choice(ModalScreen[str | None]):
    """Asks for one of several things; Enter alone is for the one that is `at` first."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "none of them")]

    def __init__(self, title: str, options: dict[str, Text], at: int = 0) -> None:
        super().__init__()
        self._title = title
        self._at = at
        self._options = options

    def compose(self) -> ComposeResult:
        """Make the list."""
        options = OptionList(*(Option(text, id=f"o{n}") for n, text in enumerate(self._options.values())))
        options.highlighted = self._at
        options.border_title = f"{self._title} (arrows, Enter; Esc: none)"
        yield options

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Return the choice."""
        self.dismiss(list(self._options)[event.option_index])


class _Main(Screen[None], inherit_bindings=False):
    """The screen, with no keys of its own."""


class CockpitApp(App[None], inherit_bindings=False):
    """Shows a machine at hand; `ssh` has a shell opened when it is ready, `line` takes the console at once."""

    TITLE = "vmtests"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #title { height: 1; background: $primary-background; }
    #title, #stages { text-wrap: nowrap; text-overflow: ellipsis; }
    #stages { height: 7; }
    #told { height: auto; max-height: 7; }
    #console { height: 1fr; scrollbar-size-vertical: 1; }
    #partial { height: 1; }
    #says { height: auto; max-height: 5; background: $boost; }
    #below { height: 1fr; }
    #line { height: 1fr; border: round $accent; }
    Choice { align: center middle; }
    Choice OptionList { width: 66; height: auto; max-height: 18; border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "take('console')", "type"),
        Binding(GIVE_BACK, "take('console')", show=False),
        Binding("d", "take('debug shell')", "debug shell"),
        Binding("D", "ask('debug')", "boot with one", show=False),
        Binding("c", "take('ssh')", "ssh"),
        Binding("y", "sysrq", "sysrq"),
        Binding("p", "picture", "screen"),
        Binding("s", "ask('snapshot')", "snapshot"),
        Binding("r", "rewind", "rewind"),
        Binding("z", "ask('pause')", "pause"),
        Binding("x", "ask('power')", "power"),
        Binding("g", "ask('gdb')", "gdb"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False),
    ]

    def __init__(self, cockpit: Cockpit, *, ssh: bool = False, line: bool = False) -> None:
        super().__init__()
        self._cockpit = cockpit
        self._ssh = ssh
        self._line = line
        self._since = 0
        self._machine = self._boot = 0
        self._points: dict[str, bool] = {}
        self._says = ""
        self._pending: Callable[[str], None] | None = None
        self._shown_busy = False
        self._drawn: dict[str, Text] = {}
        self._message = ""
        self.terminated = False

    def compose(self) -> ComposeResult:
        """Make the parts."""
        yield Static(id="title")
        yield Static(id="stages")
        yield Static(id="told")
        with Vertical(id="below"):
            yield RichLog(id="console", max_lines=_SHOWN, wrap=True, markup=False, highlight=False, min_width=20)
            yield Static(id="partial")
        yield Static(id="says")
        yield Footer(compact=True, show_command_palette=False)

    def get_default_screen(self) -> Screen[None]:
        """Return the screen."""
        return _Main(id="_default")

    @property
    def _main(self) -> Screen[Any]:
        """The screen below those that ask for something."""
        return self.screen_stack[0]

    def on_mount(self) -> None:
        """Begin to look at the machine; what would end the process politely ends this first."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        self.begin_capture_print(self)
        self._main.query_one("#console").focus()
        self._ticks = self.set_interval(TICK, self._look)
        if self._line:
            self.action_take(Way.CONSOLE)

    def _terminate(self) -> None:
        self.terminated = True
        self.exit()

    def on_print(self, event: events.Print) -> None:
        """Show what would have been printed."""
        if text := Text.from_ansi(event.text).plain.strip():
            self._say(text)

    def on_unmount(self) -> None:
        """Look no more."""
        self._ticks.stop()

    def _look(self) -> None:
        if not self.screen_stack or not self._main.query("#title"):
            return  # it is being taken down
        try:
            state = self._cockpit.state(self._since)
        except VmtestsError as error:
            self.exit(message=str(error))
            return
        self._points = dict(state.points)
        self._show_lines(state)
        off = " · off" if not state.on else " · stands still" if state.still else ""
        self._set("#title", Text(f" {printable(state.title)} · boot {state.boot} · {state.t:.1f} s{off}", "bold"))
        self._set("#stages", _stages(state))
        self._set("#told", _told(state))
        self._set("#partial", Text(state.partial, "bold"))
        if state.says and state.says != self._says:
            self._says = state.says
            self._say(state.says)
        if state.busy:
            self._set("#says", Text(f" {state.busy}…", "italic"))
        elif self._shown_busy:
            self._set("#says", Text(f" {self._message}"))
        self._shown_busy = bool(state.busy)
        if self._ssh and state.told is not None and state.told.word == "ready":
            self._ssh = False
            self.action_take(Way.SSH)

    def _show_lines(self, state: State) -> None:
        if not self._main.query_one("#console", RichLog).display:
            return  # what comes while a line is taken is shown when it is given back
        if (state.machine, state.boot) != (self._machine, self._boot):
            if self._machine:
                self._put(Text(f"── machine {state.machine}, boot {state.boot} " + "─" * 30, "dim"))
            self._machine, self._boot = state.machine, state.boot
        missed = state.total - self._since - len(state.lines[-_PER_TICK:])
        if missed > 0 and self._since:
            self._put(Text(f"({missed} lines are in console.log only)", "dim"))
        for line in state.lines[-_PER_TICK:]:
            text = Text(f"{line.t:7.2f} ", "dim")
            text.append(f"{line.stage:<11} ", _STYLES[line.stage])
            text.append(line.text, "default")
            self._put(text)
        self._since = state.total

    def _put(self, text: Text) -> None:
        """Write to the console, which has no width of its own while a line hides it, and until the next layout."""
        log = self._main.query_one("#console", RichLog)
        width = log.scrollable_content_region.width or self._main.query_one("#below").size.width - _SCROLLBAR
        log.write(text, width=width if width > 0 else None)

    def _set(self, place: str, text: Text) -> None:
        if self._drawn.get(place) != text:
            self._drawn[place] = text
            self._main.query_one(place, Static).update(text)

    def _tell(self, answer: str) -> None:
        """Say what came of something, and keep it on the console: a path or a command is wanted later too."""
        if answer:
            self._say(answer)
            self._put(Text(f"» {self._message}", "bold"))

    def _say(self, message: str) -> None:
        self._message = printable(message, 600)
        self._set("#says", Text(f" {self._message}"))

    def _answer(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        """Have `done` called with what comes of it, in this thread; an error is said."""

        async def wait() -> None:
            try:
                result = await asyncio.wrap_future(future)
            except VmtestsError as error:
                self._tell(str(error))
            else:
                done(result)

        self.run_worker(wait(), exclusive=False)

    # Keys.

    def on_key(self, event: events.Key) -> None:
        """Take the key that was asked for."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            event.stop()
            event.prevent_default()
            if event.key == "escape" or not event.character:
                self._say("no sysrq")
            else:
                pending(event.character)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Let no key do anything else while one is asked for."""
        return super().check_action(action, parameters) if self._pending is None else False

    def action_sysrq(self) -> None:
        """Ask for a key of sysrq."""
        self._say("sysrq: which key? (h: which there are, t: tasks, w: blocked tasks, l: processors; Esc: none)")
        self._pending = lambda key: self.action_ask(Act.SYSRQ, key)

    def action_ask(self, act: str, word: str = "") -> None:
        """Have something done."""
        self._answer(self._cockpit.ask(Act(act), word), self._tell)

    def action_picture(self) -> None:
        """Take a picture, and show it where the terminal can."""
        self._answer(self._cockpit.ask(Act.PICTURE), self._show_picture)

    def _show_picture(self, path: str) -> None:
        self._tell(path)
        if not self.is_headless and picture.speaks() and (shown := picture.sequences(Path(path))):
            with self.suspend():
                os.write(sys.__stderr__.fileno(), shown)  # type: ignore[union-attr]
                input(f"\n{path}: Enter goes on ")

    def action_rewind(self) -> None:
        """Ask where to go back to."""

        def chosen(point: str | None) -> None:
            if point is not None:
                self._drop_line()
                self.action_ask(Act.REWIND, point)

        options = {
            point: Text(
                point + ("  kept: at once" if kept else "  boots again" if point == Stage.FIRMWARE else _AGAIN)
            )
            for point, kept in self._points.items()
        }
        # Who has kept a machine wants that; booting again by mistake would take minutes.
        at = max((n for n, kept in enumerate(self._points.values()) if kept), default=0)
        self.push_screen(Choice("go back to", options, at), chosen)

    def action_take(self, way: str) -> None:
        """Take a line."""
        size = self._main.query_one("#below").size
        taking = self._cockpit.take(Way(way), max(size.width - 2, COLUMNS // 2), max(size.height - 2, LINES // 3))
        self._answer(taking, lambda taken: self._show_line(taken, way))

    def _show_line(self, taken: Taken, way: str) -> None:
        self._drop_line()
        for place in ("#console", "#partial"):
            self._main.query_one(place).display = False
        self._main.query_one("#below").mount(Line(taken, way))

    def on_line_ended(self, event: Line.Ended) -> None:
        """Show the console again."""
        self._drop_line()
        self._say(event.why)

    def _drop_line(self) -> None:
        for line in self._main.query(Line):
            line.remove()
        for place in ("#console", "#partial"):
            self._main.query_one(place).display = True
        self._main.query_one("#console").focus()


def _stages(state: State) -> Text:
    text = Text("\n").join([_stage(row, state) for row in state.rows])
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _stage(row: Row, state: State) -> Text:
    now = row.stage is state.stage and (state.told is None or state.told.word != "ready")
    failed = now and state.told is not None
    mark = "✗" if failed else "▶" if now else "✓" if row.seconds is not None else " "
    text = Text(f" {mark} ", "red" if failed else "green")
    text.append(f"{row.stage:<12}", f"bold {_STYLES[row.stage]}" if now else _STYLES[row.stage])
    text.append(f"{row.seconds:7.1f} s  " if row.seconds is not None else f"{'':9}  ")
    if row.stage is Stage.READY:
        return text
    used = 0.0
    if now and state.left is not None and row.budget:
        used = min(max(1 - state.left / row.budget, 0.0), 1.0)
    text.append("█" * round(used * _BAR), "yellow" if used > 0.5 else "green")
    text.append("░" * (_BAR - round(used * _BAR)), "dim")
    text.append(f" silent ≤ {row.budget:3.0f} s", "dim")
    if row.usual is not None:
        slow = row.seconds is not None and row.seconds > 1.5 * row.usual + 1
        text.append(f"  usual {row.usual:.1f} s", "yellow" if slow else "dim")
    if now and state.waits_for:
        text.append(f"  {state.waits_for}", "yellow")
    return text


def _told(state: State) -> Text:
    told: Told | None = state.told
    if told is None:
        return Text(f" no verdict yet; results: {printable(state.results)}", "dim")
    text = Text(f" {told.word}: {told.sentence}", f"bold {_WORDS.get(told.word, 'red')}")
    if told.word != "ready":
        for evidence in told.evidence[:3]:
            text.append(f"\n   {evidence}", "default")
        if told.hint:
            text.append(f"\n hint: {told.hint}", "default")
    return text
