"""Facts of a guest, from what its tools print."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.errors import GuestError
from vmtests.guest.facts import (
    Facts,
    parse_cmdline,
    parse_journal,
    parse_mountinfo,
    parse_registration,
    parse_units,
    unescape,
)
from vmtests.guest.result import Result

OVERLAY = (
    "lowerdir=/sysroot/nix/.ro-store,upperdir=/sysroot/nix/.rw-store/upper,workdir=/sysroot/nix/.rw-store/work,uuid=on"
)
MOUNTINFO = f"""\
21 29 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
29 1 8:3 / / rw,relatime shared:1 - ext4 /dev/sda3 rw
30 29 8:2 / /nix/.ro-store ro,relatime shared:2 - erofs /dev/sda2 ro,user_xattr,acl,cache_strategy=readaround
31 29 0:26 / /nix/store rw,relatime shared:3 - overlay overlay rw,{OVERLAY}
55 31 0:26 / /nix/store ro,nosuid,nodev,relatime shared:3 master:1 - overlay overlay rw,{OVERLAY}
60 29 8:1 / /boot rw,relatime - vfat /dev/sda1 rw,fmask=0022,codepage=437
61 29 0:40 /sub\\040dir /mnt/a\\040b\\134 rw - tmpfs some\\040source rw
"""


def test_two_mounts_at_the_store() -> None:
    """The overlay and the read-only bind on top of it are both seen, bottom to top."""
    bottom, top = parse_mountinfo(MOUNTINFO).at("/nix/store")
    assert (bottom.id, bottom.options) == (31, frozenset({"rw", "relatime"}))
    assert (top.id, top.options) == (55, frozenset({"ro", "nosuid", "nodev", "relatime"}))


def test_the_order_of_a_stack_is_that_of_parents() -> None:
    """A stack is ordered by which mount stands on which, whatever the order of the lines."""
    turned = "\n".join(reversed(MOUNTINFO.splitlines()))
    assert [mount.id for mount in parse_mountinfo(turned).at("/nix/store")] == [31, 55]


def test_options_of_the_mount_and_of_the_file_system() -> None:
    """Options of a mount and of its file system are kept apart, since a bind's `ro` is only the mount's."""
    top = parse_mountinfo(MOUNTINFO).top("/nix/store")
    assert ("ro" in top.options, "ro" in top.super_options, top.read_only) == (True, False, True)


def test_option_values() -> None:
    """An option's value is found in either set; a flag has an empty one, and what is absent has none."""
    top = parse_mountinfo(MOUNTINFO).top("/nix/store")
    values = [top.option(name) for name in ("lowerdir", "nodev", "dev", "lower")]
    assert values == ["/sysroot/nix/.ro-store", "", None, None]


def test_the_top_of_one_mount() -> None:
    """Where one mount is, it is the top."""
    mount = parse_mountinfo(MOUNTINFO).top("/nix/.ro-store")
    assert (mount.fstype, mount.source, mount.read_only) == ("erofs", "/dev/sda2", True)


def test_nothing_mounted() -> None:
    """Where nothing is mounted there is no top, and the stack is empty."""
    mounts = parse_mountinfo(MOUNTINFO)
    assert mounts.at("/nix") == ()
    with pytest.raises(GuestError, match="nothing is mounted at /nix in the guest"):
        mounts.top("/nix")


def test_escapes_in_mountinfo() -> None:
    """Spaces and backslashes of paths are given back, in root, target and source."""
    mount = parse_mountinfo(MOUNTINFO)[-1]
    assert (mount.root, mount.target, mount.source) == ("/sub dir", "/mnt/a b\\", "some source")


def test_optional_fields() -> None:
    """A mount has any number of optional fields, none too."""
    mounts = parse_mountinfo(MOUNTINFO)
    assert [mounts.top(path).propagation for path in ("/boot", "/nix/store")] == [
        (),
        ("shared:3", "master:1"),
    ]


def test_mounts_are_a_sequence() -> None:
    """Mounts are counted and cut as a sequence is."""
    mounts = parse_mountinfo(MOUNTINFO)
    assert (len(mounts), [mount.id for mount in mounts[:2]]) == (7, [21, 29])


def test_this_machine_s_mounts() -> None:
    """What the running kernel writes is read whole."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:  # noqa: PTH123 - a seek would end in the middle of a mount
        text = file.read()
    assert len(parse_mountinfo(text)) == text.count("\n")


@pytest.mark.parametrize("line", ["x", "1 2 3:4 / / rw", "a 2 3:4 / / rw - ext4 x rw", "1 2 3:4 / rw - ext4 x rw"])
def test_no_mountinfo(line: str) -> None:
    """A line that is none of mountinfo is an error that shows it."""
    with pytest.raises(GuestError, match="is not a line of mountinfo"):
        parse_mountinfo(line)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_octal_escapes(text: str) -> None:
    """Whatever the kernel escapes as it does in seq_file's mangle_path comes back."""
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)
    assert unescape(escaped) == text


@given(st.text())
def test_unescape_takes_anything(text: str) -> None:
    """No text makes it fail; what is no escape stays."""
    if "\\" not in text:
        assert unescape(text) == text
    else:
        unescape(text)


UNITS = json.dumps(
    [
        {
            "unit": "-.mount",
            "load": "loaded",
            "active": "active",
            "sub": "mounted",
            "description": "Root Mount",
        },
        {
            "unit": "x.service",
            "load": "loaded",
            "active": "failed",
            "sub": "failed",
            "description": "X",
            "job": None,
        },
    ]
)


def test_units() -> None:
    """Units are found by name, and fields of later systemds are passed over."""
    units = parse_units(UNITS)
    assert (len(units), units["-.mount"].sub, "y.service" in units) == (2, "mounted", False)


def test_units_of_a_systemd_without_json() -> None:
    """As one of 2019 lists them, in columns."""
    text = (
        "-.mount                loaded    active   mounted Root Mount                      \n"
        "● x.service            loaded    failed   failed  LSB: starts it, and more        \n"
        "y.service              not-found inactive dead    y.service                       \n"
    )
    units = parse_units(text)
    assert (["x.service"], "not-found") == ([unit.name for unit in units.failed], units["y.service"].load)


def test_failed_units() -> None:
    """The failed units are those whose active state is failed."""
    assert [unit.name for unit in parse_units(UNITS).failed] == ["x.service"]


@pytest.mark.parametrize(
    ("name", "counts"), [("session-3.scope", False), ("session-c1.scope", False), ("a.scope", True)]
)
def test_session_of_a_login_is_no_failed_unit(name: str, counts: bool) -> None:
    """The scope of a login that its visitor left does not tell of the system; any other scope does."""
    assert bool(parse_units(UNITS.replace("x.service", name)).failed) is counts


@pytest.mark.parametrize("text", ["", "{}", "[{}]", "nope", '[{"unit": 1}]'])
def test_no_units(text: str) -> None:
    """What is no list of units is a GuestError."""
    with pytest.raises(GuestError, match="no list of units"):
        parse_units(text)


def _entry(**fields: object) -> str:
    base = {
        "__MONOTONIC_TIMESTAMP": "12",
        "__REALTIME_TIMESTAMP": "34",
        "_BOOT_ID": "b0",
        "MESSAGE": "hello",
    }
    return json.dumps(base | fields) + "\n"


def test_journal_entry() -> None:
    """Times are numbers, and the fields that matter have names."""
    (entry,) = parse_journal(_entry(_SYSTEMD_UNIT="a.service", MESSAGE_ID="m1"))
    assert (entry.monotonic, entry.realtime, entry.boot_id) == (12, 34, "b0")
    assert (entry.unit, entry.message, entry.message_id) == ("a.service", "hello", "m1")


def test_the_manager_s_entry_is_about_its_unit() -> None:
    """A message of the manager about a unit belongs to that unit."""
    (entry,) = parse_journal(_entry(_SYSTEMD_UNIT="init.scope", UNIT="sysroot.mount"))
    assert entry.unit == "sysroot.mount"


def test_journal_values() -> None:
    """Null, byte arrays and repeated fields are read as journalctl writes them."""
    text = _entry(MESSAGE=[104, 195, 164, 255], LONG=None, TWICE=["one", "two"], BYTES=[[111, 107], "x"], NONE=[None])
    (entry,) = parse_journal(text)
    assert entry.message == "hä\ufffd"
    assert {name: entry.fields.get(name) for name in ("LONG", "TWICE", "BYTES", "NONE")} == {
        "LONG": None,
        "TWICE": "one",
        "BYTES": "ok",
        "NONE": None,
    }


def test_an_entry_without_a_message() -> None:
    """An entry whose message was too long has an empty one."""
    assert parse_journal(_entry(MESSAGE=None))[0].message == ""


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"MESSAGE": 1}', _entry(X=[300]), _entry(_BOOT_ID=None)])
def test_no_journal(line: str) -> None:
    """A line that is no entry is a GuestError."""
    with pytest.raises(GuestError, match="is not an entry of the journal"):
        parse_journal(line)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "initrd=\\EFI\\nixos\\initrd.efi init=/nix/store/x/init\n",
            ("initrd=\\EFI\\nixos\\initrd.efi", "init=/nix/store/x/init"),
        ),
        ('a="b c"  "d=e f" g', ("a=b c", "d=e f", "g")),
        ('a="unended b', ("a=unended b",)),
        ("", ()),
    ],
)
def test_cmdline(text: str, words: tuple[str, ...]) -> None:
    """A kernel command line is split at spaces that are not in double quotes."""
    assert parse_cmdline(text) == words


REGISTRATION = """\
/nix/store/aaa-one
00ff
120

0
/nix/store/bbb-two
11ff
4096
/nix/store/ddd-two.drv
2
/nix/store/aaa-one
/nix/store/bbb-two
"""


def test_registration() -> None:
    """A dump of the Nix database gives every path with its hash, size, deriver and references."""
    one, two = parse_registration(REGISTRATION)
    assert (one.path, one.nar_hash, one.nar_size, one.deriver, one.references) == (
        *("/nix/store/aaa-one", "00ff", 120, None),
        frozenset(),
    )
    assert two.deriver == "/nix/store/ddd-two.drv"
    assert two.references == {"/nix/store/aaa-one", "/nix/store/bbb-two"}


def test_an_empty_registration() -> None:
    """A database without paths has an empty dump."""
    assert parse_registration("") == ()


@pytest.mark.parametrize("end", range(1, 10))
def test_a_cut_registration(end: int) -> None:
    """A dump that ends in the middle of a path is a GuestError, wherever it was cut."""
    lines = REGISTRATION.split("\n")[: end + (end >= 5)]
    with pytest.raises(GuestError, match="in the middle of a path"):
        parse_registration("\n".join(lines))


class Canned:
    """A runner that knows the answers to some commands."""

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers = answers

    def run(self, command: str, /) -> Result:
        """Return the answer to a command that contains a known word."""
        for word, answer in self._answers.items():
            if word in command:
                return Result.of(command, stdout=answer.encode(), stderr=b"", exit_code=0, duration=0.0)
        return Result.of(command, stdout=b"", stderr=b"not found\n", exit_code=127, duration=0.0)


def test_facts_ask_the_guest() -> None:
    """Every fact comes from a command that a runner runs."""
    facts = Facts(
        Canned(
            {
                "mountinfo": MOUNTINFO,
                "list-units": UNITS,
                "--unit=a": _entry(),
                "cmdline": "a b\n",
                "boot_id": "01234567-89ab-cdef-0123-456789abcdef\n",
                "--dump-db": REGISTRATION,
            }
        )
    )
    assert (len(facts.mounts()), len(facts.units()), len(facts.journal("--unit=a"))) == (7, 2, 1)
    assert (facts.cmdline(), facts.boot_id()) == (("a", "b"), "0123456789abcdef0123456789abcdef")
    assert len(facts.valid_paths()) == 2


def test_facts_of_a_guest_without_the_tool() -> None:
    """A guest that cannot tell a fact is a GuestError with what it said."""
    with pytest.raises(GuestError, match="ended with 127 in the guest: not found"):
        Facts(Canned({})).units()


def test_answers_that_are_too_deep_are_none() -> None:
    """A guest that nests its JSON ten thousand times gets a sentence, as for any other that is none."""
    for parse, text in ((parse_journal, '{"a":' + "[" * 10_000), (parse_units, '[{"x":' + "[" * 10_000)):
        with pytest.raises(GuestError):
            parse(text)
