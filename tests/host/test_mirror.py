"""A tree that cannot be made says why, by what apt and mmdebstrap have said on such hosts."""

import pytest

from vmtests.host import mirror

UPDATE = (
    "W: running chrootless mode as root might damage the host system",
    "I: running apt-get update...",
    "Ign:1 http://mirror/debian trixie InRelease",
)
END = (
    "Reading package lists...",
    "E: The repository 'http://mirror/debian trixie InRelease' is not signed.",
    "E: Some index files failed to download. They have been ignored, or old ones used instead.",
    "E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed",
    "E: mmdebstrap failed to run",
)
AT = "Err:1 http://mirror/debian trixie InRelease"


def failure(*lines: str) -> tuple[str, str]:
    """Return the sentence and the hint after these lines among those that always come."""
    error = mirror.failure("tree", [*UPDATE, *lines, *END])
    return error.message, error.hint or ""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without a proxy."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "why",
    [
        "Temporary failure resolving 'mirror.example'",
        "Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)",
        "Unable to connect to 127.0.0.1:9:",
        "Connection timed out [IP: 10.0.0.1 80]",
    ],
)
def test_no_network_is_told_with_its_reason(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network one is needed; with a proxy it may be at fault, of which only the variable is named."""
    said = f"tree: no Debian mirror can be reached: http://mirror/debian trixie InRelease: {why}"
    assert failure(AT, why) == (said, "a network is needed once; VMTESTS_MIRROR names another mirror")
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy:3128")
    assert failure(AT, why) == (said, "is the proxy right that http_proxy gives?")


@pytest.mark.parametrize(
    ("lines", "said", "hint"),
    [
        ((AT, "503  Service Unavailable [IP: 1.2.3.4 80]"), "503  Service Unavailable", "names another mirror"),
        (("Err:2 http://m trixie Release", "404  Not Found [IP: 1.2.3.4 80]"), "Release: 404  Not Found", "another"),
        (("Err:2 file:/x trixie Release", "File not found - /x"), "file:/x trixie Release: File not found", "another"),
        ((AT, "Could not handshake: An unexpected TLS packet was received."), "Could not handshake", "another"),
        ((AT, "Clearsigned file isn't valid, got 'NOSPLIT' (does the network require"), "NOSPLIT", "log in"),
        ((AT, "407  Proxy Authentication Required [IP: 1.2.3.4 80]"), "407  Proxy", "network is needed"),
        (("E: Release file for http://x is not valid yet (invalid for another 3d)",), "not valid yet", "clock says 2"),
        ((AT, "The following signatures were invalid: EXPKEYSIG 78DBA3BC47EF2265"), "EXPKEYSIG", "newer keys"),
        ((AT, "couldn't be verified because the public key is not available: NO_PUBKEY 6E"), "NO_PUBKEY", "signed-by"),
        ((AT, "gpgv, gpgv2 or gpgv1 required for verification, but neither seems"), "gpgv", "apt-get install gpgv"),
        (("E: cannot find apt-get",), "mmdebstrap: cannot find apt-get", "install it"),
        (("E: invalid mirror: foo",), "invalid mirror: foo", "an address, or a line"),
        (("E: Unable to locate package nonsense",), "Unable to locate package nonsense", "another mirror"),
        (("E: write error - No space left on device",), "tree: the disk is full", "free some space"),
    ],
)
def test_reason_is_told_and_the_hint_fits_it(lines: tuple[str, ...], said: str, hint: str) -> None:
    """What apt says of the first file that failed is told, and not that mmdebstrap failed."""
    message, told = failure(*lines)
    assert said in message
    assert hint in told


def test_unknown_reason_has_no_hint() -> None:
    """A mirror is only spoken of where another one would help; without any word the last line is told."""
    error = mirror.failure("tree", ["E: running chrootless mode as root is not done"])
    assert (error.message, error.hint) == ("tree: mmdebstrap: running chrootless mode as root is not done", None)
    assert mirror.failure("tree", ["I: one", "Killed"]).message == "tree: mmdebstrap: Killed"
    assert mirror.failure("tree", []).message == "tree: mmdebstrap: no message"
