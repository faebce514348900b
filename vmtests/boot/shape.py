"""The shape that collectors give to lines: prefixes of journals, CI, test drivers and containers.

A prefix is taken off where most lines of the recording's begin have it, so that a line which only quotes another
keeps its quotation.
"""

import json
import re
from collections import Counter
from datetime import datetime

_LOOKED_AT = 40  # lines by which the shape is found
_AGAIN = (4, 10, 20, _LOOKED_AT)
_SHARE = 0.6
_DEEP = 3  # prefixes, one in front of the other

_ISO = r"(?P<iso>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_KERNEL = re.compile(r"kernel: ")  # journalctl: the kernel's own
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        # syslog, RFC 5424
        rf"<\d{{1,3}}>1 {_ISO} \S{{1,64}} \S{{1,48}} \S{{1,20}} \S{{1,32}} (?:-|\[[^\]]{{1,200}}\]) \ufeff?",
        # gh run view --log: job and step
        r"[\w ./(),-]{3,120}? \ufeff?(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z )",
        # talosctl dmesg: node, facility and priority
        r"[\w.:-]{1,64}: \w{2,10}: {1,6}\w{2,10}: (?=\[\d{4}-)",
        # CI (GitHub, Azure), docker logs -t, journalctl -o short-iso, cloud collectors, `ts`
        rf"\[?{_ISO}\]?(?: \d\d[OE]\+?)?(?: ?[|:] ?|[ \t])",
        # journalctl -o short[-precise], syslog, with the host's name
        r"(?P<journal>)\w{3} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})? [\w.-]{1,64} (?=\S{1,64}(?:\[\d+\])?: )",
        r"\[?\w{3} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\]? ",
        # journalctl -o short-unix
        r"(?P<journal>)\d{10}\.\d{1,9} [\w.-]{1,64} (?=\S{1,64}(?:\[\d+\])?: )",
        r"\[?\d\d:\d\d:\d\d(?:[.,:]\d{1,6})?\]? {1,2}(?:\d\d:\d\d:\d\d(?:[.,]\d{1,6})? )?",
        # a date as it is written by hand
        r"\[?\d\d[/.]\d\d[/.]\d{4} \d\d:\d\d:\d\d(?:[.,]\d{1,6})?\]? ",
        # journalctl -o short-monotonic
        r"(?P<journal>)\[ {0,8}\d{1,8}\.\d{6}\] [\w.-]{1,64} (?=(?:kernel|systemd|\S{1,40}\[\d+\]): )",
        # journalctl -o short-iso, what is left of it
        r"(?P<journal>)(?!kernel:)[\w.-]{1,64} (?=(?:kernel|[A-Za-z(][^\s\[\]]{0,63}\[\d+\]): )",
        _KERNEL.pattern,
        # the runtime interface of containers (CRI), as kubelet keeps it
        r"std(?:out|err) [FP] ",
        # programs that log a console under a level and their own name
        (
            r"(?!\w{4,7}: {1,4}(?:BL\d|Booting Trusted)) {0,2}\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING"
            r"|ERROR)\]?:? {1,2}(?:- )?"
            r"(?:\[?[\w.$/-]{1,60}\]? {0,2}[-:|] )?"
        ),
        # grep -n, cat -n, editors
        r" {0,6}\d{1,7}(?:: ?| {1,2})",
        # NixOS' test driver, docker compose, packer, vagrant, test runners
        r"[\w.-]{1,40} ?# ",
        r"[\w.-]{1,40} {0,12}\| ",
        r"(?: {4}|==> )[\w.-]{1,40}: ",
        r"\((?!XEN\))(?:finished|[\w.-]{1,40})\)? ?>? ",
        r"(?!qemu-system-\w{1,20}: (?:-|warning: ))(?:serial|console|ttyS\d|guest|vm|qemu)\S{0,20}(?::| -|>|\]) ",
        # nix build -L: the derivation; a prompt that is painted again and again is none
        r"(?!Shell|grub|iPXE|loader|[a-z]{0,3}sh>)[\w.+-]{3,80}> ",
        r"> ",
        r"`",
    )
)

_PROGRAM = re.compile(
    r"(?!systemd|kernel|dracut|ignition|coreos|ostree|cloud-init|initrd)[A-Za-z][\w.@()/-]{0,60}\[\d{1,7}\]: "
)
_NEARLY_ALL = 0.8
_FEW = 5  # lines; of fewer nobody can say that they are all of one program


_GUEST_SAID = re.compile(
    r'\b(?:vmconsole="((?:[^"\\]|\\.)*)"|msg="((?:<\d>)?\[ {0,8}\d{1,8}\.\d{6}\] (?:[^"\\]|\\.)*)" \w+=)'
)
# logfmt, as runtimes of virtual machines for containers write it.
_LOGFMT = re.compile(r'\b(?:vmconsole|console|log|msg)="((?:[^"\\]|\\.)*)"\s*$')

# journalctl -o json; Fluent Bit, Docker, Loki, Cloud Logging, Elastic, OpenTelemetry.
_KEYS = ("MESSAGE", "message", "line", "log", "msg", "text", "textPayload", "content", "body")

_CSI = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,4}[@-~]")  # as in the scanner, which saw it spelled as text


class Undress:
    """Takes lines, and gives them without their collector's prefix, with its time where it has one."""

    def __init__(self) -> None:
        self._held: list[str] | None = []
        self._sample: list[str] = []
        self._prefixes: list[re.Pattern[str]] = []

    def feed(self, text: str) -> list[tuple[str, datetime | None]]:
        """Take a line; the first ones are held until the shape is known."""
        if self._held is None:
            if not self._prefixes and len(self._sample) < _LOOKED_AT:  # of a log that grows little was seen so far
                self._sample.append(_unpacked(text))
                if len(self._sample) in _AGAIN:
                    self._find(self._sample)
            return [self._bare(text)]
        self._held.append(text)
        return self.finish() if len(self._held) >= _LOOKED_AT else []

    def finish(self) -> list[tuple[str, datetime | None]]:
        """Give what is held."""
        held, self._held = self._held or [], None
        if held:
            self._sample = [_unpacked(line) for line in held]
            self._find(self._sample)
        return [self._bare(line) for line in held]

    def bare(self, text: str) -> str:
        """Return a line that has not ended yet without what is in front of it."""
        return self._bare(text)[0]

    def _find(self, lines: list[str]) -> None:
        # What was quoted somewhere is indented as a whole.
        indents = sorted(len(line) - len(line.lstrip()) for line in lines)
        if len(lines) > 2 and (least := indents[len(indents) // 8]):
            self._prefixes.append(re.compile(rf"\s{{1,{least}}}"))
            lines = [line[min(least, len(line) - len(line.lstrip())) :] for line in lines]
        for _ in range(_DEEP):
            for prefix in _PREFIXES:
                if prefix in self._prefixes:
                    continue
                found = [match.end() if (match := prefix.match(line)) else 0 for line in lines]
                if lines and sum(end > 0 for end in found) >= max(_SHARE * len(lines), 2):
                    lines = [line[end:] for line, end in zip(lines, found, strict=True)]
                    self._prefixes.append(prefix)
                    break
            else:
                break
        # In a journal that is who speaks, and no quotation, however few of its lines are the kernel's.
        if _KERNEL not in self._prefixes and any("journal" in prefix.groupindex for prefix in self._prefixes):
            self._prefixes.append(_KERNEL)
        # A program that runs the machine, and whose output the journal keeps.
        heads = Counter(match[0] for line in lines if (match := _PROGRAM.match(line)))
        if heads and (most := heads.most_common(1)[0])[1] >= _NEARLY_ALL * max(len(lines), _FEW):
            self._prefixes.append(re.compile(re.escape(most[0])))

    def _bare(self, text: str) -> tuple[str, datetime | None]:
        text, clock = _unpacked(text), None
        for prefix in self._prefixes:
            if match := prefix.match(text):
                if clock is None and "iso" in prefix.groupindex:
                    clock = _date(match["iso"])
                text = text[match.end() :]
        return text, clock


def _date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _decoded(said: object) -> object:
    """Return text that journalctl gives as a list of bytes, since it is no UTF-8 or has escapes."""
    if isinstance(said, list) and said and all(isinstance(byte, int) and 0 <= byte < 256 for byte in said):
        return bytes(said).decode("utf-8", "replace")
    return said


def _unpacked(line: str) -> str:
    """Return what a line of `journalctl -o json` or of a collector's JSON says; else the line."""
    if line.startswith(("time=", "ts=", "level=")) and (match := _LOGFMT.search(line)):
        return match[1].replace('\\"', '"')
    if line.startswith(("time=", "ts=", "level=")) and (match := _GUEST_SAID.search(line)):
        return (match[1] or match[2]).replace('\\"', '"').removesuffix("\\n")
    bare = line.strip().removesuffix(",")
    if (bare[:1], bare[-1:]) not in {("{", "}"), ('"', '"')}:
        return line
    try:
        fields = json.loads(bare)
    except (ValueError, RecursionError):
        return line
    if isinstance(fields, str):  # an element of a list of lines
        return _CSI.sub("", fields)
    if not isinstance(fields, dict):
        return line
    for part in (fields, *fields.values()):  # what was said may be one level down
        for key in _KEYS if isinstance(part, dict) else ():
            if isinstance(said := _decoded(part.get(key)), str):
                by = part.get("SYSLOG_IDENTIFIER") if key == "MESSAGE" else None
                return f"systemd[1]: {said}" if by == "systemd" else _CSI.sub("", said).rstrip("\r\n")
    return line
