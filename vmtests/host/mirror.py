"""Why a tree of Debian's packages could not be made, by what mmdebstrap and apt have said."""

import itertools
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from vmtests.errors import HostError
from vmtests.host.sandbox import NO_SPACE
from vmtests.text import printable

SUITE = "trixie"
"""The Debian release that the tools tree and the reference image are made of."""

_FAILED = re.compile(r"Err:\d+ ")
# What follows from something else that is said, too.
_NO_REASON = re.compile(r"E: (?:apt-get |mmdebstrap failed|Some index files)")
_UNREACHABLE = re.compile(
    r"Could not resolve|Temporary failure|Could not connect|Unable to connect|Cannot initiate|onnection timed out"
    r"|onnection failed|onnection refused|Network is unreachable|Could not wait for server|407  Proxy"
)
_PROXIES = ("http_proxy", "https_proxy")  # apt-transport-http(1), apt-transport-https(1)
_ANOTHER = "VMTESTS_MIRROR names another mirror"
_CLOCK = "this host's clock says {today}: is that right?"
_HINTS = (
    (r"is not valid yet|Not live until", _CLOCK),
    (r"EXPKEYSIG|is expired|expired on|Expired on", f"{_CLOCK} If so, a newer vmtests has newer keys"),
    (r"gpgv1? required|no sqv|could not execute '(?:gpgv|sqv|apt-key)", "apt-get install gpgv"),
    (
        r"NO_PUBKEY|Missing key|is not signed|public key is not available",
        f"a mirror with a key of its own: VMTESTS_MIRROR='deb [signed-by=FILE] ADDRESS {SUITE} main'",
    ),
    (r"NOSPLIT", f"something else than a mirror answers: does the network want you to log in? {_ANOTHER}"),
    (r"cannot find \S+$", "install it: mmdebstrap and apt call each other and dpkg"),
    (r"invalid mirror", f"VMTESTS_MIRROR is an address, or a line: deb ADDRESS {SUITE} main"),
    (r" [45]\d\d  |File not found|Release file|Could not handshake|ertificate|Hash Sum|unexpected size|locate package",
     _ANOTHER),
)  # fmt: skip


def failure(title: str, tail: Sequence[str]) -> HostError:
    """Return the error of a tree that was not made; `tail` is the last lines of mmdebstrap's standard error."""
    if any(NO_SPACE in line for line in tail):
        return HostError(f"{title}: the disk is full", hint="free some space, or set VMTESTS_CACHE")
    reason = _reason(tail)
    said = printable(reason)
    if _UNREACHABLE.search(reason):
        hint = f"a network is needed once; {_ANOTHER}"
        if (proxy := next((name for name in _PROXIES if os.environ.get(name)), None)) is not None:
            hint = f"is the proxy right that {proxy} gives?"
        return HostError(f"{title}: no Debian mirror can be reached: {said}", hint=hint)
    hints = (hint for pattern, hint in _HINTS if re.search(pattern, reason))
    today = datetime.now(UTC).date().isoformat()
    return HostError(f"{title}: mmdebstrap: {said}", hint=next(hints, "").format(today=today) or None)


def _reason(tail: Sequence[str]) -> str:
    """Return the first reason that somebody gives: apt gives it below the line with the address."""
    for line, after in itertools.pairwise(tail):
        if found := _FAILED.match(line):
            return f"{line[found.end() :]}: {after}"
    said = [line for line in tail if line.startswith("E:") and not _NO_REASON.match(line)]
    return (said or list(tail) or ["no message"])[0 if said else -1].removeprefix("E: ")
