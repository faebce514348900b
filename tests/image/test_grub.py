"""GRUB's scripts are followed to the entry that is started, as far as that can be known."""

from collections.abc import Mapping, Sequence

import pytest

from vmtests.image import grub

ENTRY = """menuentry 'Debian' --class debian $menuentry_id_option 'gnulinux-simple' {{
  linux {kernel} ro
  initrd /i
}}
"""
SAVED = """
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="${saved_entry}"
fi
"""


def entry(kernel: str, title: str = "Debian") -> str:
    """Return an entry of a menu."""
    return ENTRY.format(kernel=kernel).replace("'Debian'", f"'{title}'").replace("gnulinux-simple", title.lower())


class Disk:
    """What a script finds."""

    def __init__(self, *files: str, entries: Sequence[grub.MenuEntry] = ()) -> None:
        self._files = files
        self._listed = entries
        self.told: Mapping[str, str] = {}

    def look(self, operator: str, device: grub.Device | None, path: str) -> bool | None:
        """A file is there, or not; of other devices that is not known."""
        return path in self._files and operator != "-d" if device is None else None

    def environment(self, device: grub.Device | None, path: str) -> Mapping[str, str] | None:
        """An environment says where it was found."""
        return {"place": path} if device is None else None

    def entries(self, device: grub.Device | None, variables: Mapping[str, str]) -> Sequence[grub.MenuEntry]:
        """Those that it was made with."""
        self.told = variables
        return self._listed


def kernel(text: str, **variables: str) -> str:
    """Return the kernel that a script starts."""
    found = grub.parse(text, variables, place="/boot/grub", around=Disk("/boot/grub/grubenv", "/there")).chosen
    return "" if found is None else found.kernel


@pytest.mark.parametrize(
    ("default", "started"),
    [("", "/a"), ("1", "/b"), ("9", "/a"), ("Two", "/b"), ("two", "/b"), ("2", "/c"), ("3", "/e"), ("2>1", "/d"),
     ("more>four", "/d"), ("More>Three", "/c"), ("gone", "/a")],
)  # fmt: skip
def test_default_names_an_entry_by_number_title_or_identifier_and_goes_into_submenus(
    default: str, started: str
) -> None:
    """A submenu counts as one; what is not there is the first."""
    inner = entry("/c", "Three") + entry("/d", "Four")
    menu = f"{entry('/a', 'One')}{entry('/b', 'Two')}submenu 'More' --id more {{\n{inner}}}\n{entry('/e', 'Five')}"
    assert kernel(f'set default="{default}"\n{menu}') == started


@pytest.mark.parametrize(
    ("variables", "started"),
    [({}, "/a"), ({"saved_entry": "two"}, "/b"), ({"saved_entry": "two", "next_entry": "one"}, "/a")],
)
def test_what_was_saved_is_started(variables: dict[str, str], started: str) -> None:
    """The environment block says which entry is the default, and which is it once."""
    text = SAVED + entry("/a", "One") + entry("/b", "Two")
    assert kernel(text, **variables) == started


def test_an_environment_block_is_padded_with_numbers_signs() -> None:
    """A line that begins with one is no variable."""
    block = "# GRUB Environment Block\nsaved_entry=a b\nkernelopts=root=UUID=1 ro\n####"
    assert grub.environment(block) == {"saved_entry": "a b", "kernelopts": "root=UUID=1 ro"}


def test_variables_are_put_in_but_not_those_that_only_a_machine_knows() -> None:
    """Not in single quotes either; $root is where the menu looks, and stays."""
    text = "set v=6.1\nset k=/vmlinuz-${v}\nmenuentry x {\n  linux ($root)$k a=\"$v\" b='$v' c=$nothing\n}\n"
    found = grub.parse(text).chosen
    assert found is not None
    assert (found.kernel, found.device, found.options) == ("/vmlinuz-6.1", None, "a=6.1 b=$v c=")
    assert grub.split("($root)/vmlinuz-6.1") == ("$root", "/vmlinuz-6.1")


def test_a_condition_that_cannot_be_told_is_followed_both_ways() -> None:
    """What `search` with hints finds is what it finds without them."""
    text = """
if [ x$feature_platform_search_hint = xy ]; then
  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2  aaaa-bbbb
else
  search --no-floppy --fs-uuid --set=root aaaa-bbbb
fi
if [ "$grub_platform" = "efi" ]; then menuentry 'x' { linux /a; initrd /i; }; fi
function nothing { linux /wrong }
if [ "${unset}" = yes ]; then set default=7; elif false; then set default=8; else set default=0; fi
"""
    menu = grub.parse(text)
    assert menu.device == grub.Device(kind="uuid", value="aaaa-bbbb")
    assert [(item.title, item.kernel, item.initrds) for item in menu.entries] == [("x", "/a", ("/i",))]
    assert menu.default == "0"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("search.fs_uuid 1-2 root hd0,gpt2", grub.Device(kind="uuid", value="1-2")),
        ("search --label --set=root system", grub.Device(kind="label", value="system")),
        ("search --file --set=root /vmlinuz", grub.Device(kind="file", value="/vmlinuz")),
        ("search --no-floppy --fs-uuid --set=root 1-2 --hint hd0", grub.Device(kind="uuid", value="1-2")),
        ("search --fs-uuid --set=other 1-2", None),
        ("search --fs-uuid --set=root 1-2\nsearch --fs-uuid --set=boot AB-CD", grub.Device(kind="uuid", value="1-2")),
        ("search --no-floppy --set root --label system", grub.Device(kind="label", value="system")),
        ("search --label --set root system", grub.Device(kind="label", value="system")),
        ("search -l -s -- system", grub.Device(kind="label", value="system")),
        ("search --no-floppy --fs-uuid --set 1-2", grub.Device(kind="uuid", value="1-2")),
        ("set root=(hd0,gpt2)", grub.Device(kind="device", value="hd0,gpt2")),
        ("set root='lvm/a-b'\nsearch --fs-uuid --set=root 1-2", grub.Device(kind="uuid", value="1-2")),
    ],
)
def test_search_says_what_it_looks_for(command: str, found: grub.Device | None) -> None:
    """In each of the ways that it is written."""
    assert grub.parse(command).device == found


def test_blscfg_puts_its_entries_where_it_stands() -> None:
    """They are told the variables of the environment block."""

    around = Disk(entries=[grub.MenuEntry(title="Fedora", kernel="/f")])
    menu = grub.parse(f"load_env\nblscfg\n{entry('/a')}", {"kernelopts": "ro"}, around=around)
    assert [item.kernel for item in menu.entries] == ["/f", "/a"]
    assert around.told == {"kernelopts": "ro"}
    assert grub.expand("$kernelopts $tuned_params x", {"kernelopts": "ro"}) == "ro  x"


@pytest.mark.parametrize(("device", "number"), [("hd0,gpt2", 2), ("hd0,2", 2), ("hd1,gpt2", None), ("", None),
                                                ("hd0,gpt" + "7" * 5000, None), ("hd0,gpt²", None)])  # fmt: skip
def test_only_a_partition_of_the_first_disk_has_a_number(device: str, number: int | None) -> None:
    """Whatever digits it is written with."""
    assert grub.partition(device) == number


def test_digits_that_are_none_of_ours_are_no_number() -> None:
    """int() raises for superscripts and for thousands of digits."""
    for default in ("²", "٣", "9" * 5000):
        assert kernel(f'set default="{default}"\n{entry("/a")}') == "/a"


@pytest.mark.parametrize(
    "text", ["menuentry", "}}}}", "if", "menuentry x {", "'", "else fi then", "submenu {{{" * 500]
)
def test_a_broken_script_is_read_as_far_as_it_goes(text: str) -> None:
    """Without an end, a quote or a brace."""
    grub.parse(f"{text}\nset default=1\n")


def test_a_device_of_the_first_disk_is_one_of_its_partitions() -> None:
    """By either table's name."""
    assert [grub.partition(name) for name in ("hd0,gpt2", "hd0,msdos1", "hd0,3", "hd1,gpt1", "memdisk")] == [
        2, 1, 3, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "waits"),
    [
        ("set timeout=5", ""),
        ("set timeout=-1", "a key for ever"),
        ("set timeout=-1\nset timeout=0", ""),
        ('set superusers="root"', "a password"),
    ],
)
def test_a_menu_that_waits_for_somebody_says_for_what(settings: str, waits: str) -> None:
    """Without a number of seconds the menu stays, and a superuser keeps others from its entries."""
    menu = grub.parse(f"{settings}\n{entry('/a')}")
    assert menu.waits.startswith(waits)
    assert bool(menu.waits) is bool(waits)
    free = entry("/a").replace("'Debian'", "'Debian' --unrestricted")
    assert not grub.parse(f"set superusers=root\n{free}").waits


def test_where_a_configuration_goes_on_is_known_with_its_prefix() -> None:
    """What it is depends on variables that the same script sets; a prefix that is built in is not known."""
    script = "search.fs_uuid abc root\nset prefix=($root)/boot/grub\nconfigfile ${prefix}/custom.cfg\n"
    assert grub.parse(script).onward == [(grub.Device(kind="uuid", value="abc"), "/boot/grub/custom.cfg")]
    assert grub.parse("source /a.cfg\n").onward == [(None, "/a.cfg")]
    assert "$" in grub.parse("configfile $prefix/grub.cfg\n").onward[0][1]


CHOICE = "{entry}if {condition}; then set default=1; else set default=0; fi\n"


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ('[ "$a" = "b c" -a "$a" != b ]', True),
        ('[ ! "$a" = "b c" -o -z "$nothing" ]', True),
        ('[ -n "$nothing" ]', False),
        ("[ 010 -eq 8 -a 0x10 -gt 15 -a -1 -lt 0 -a 2 -ge 2 -a 2 -le 2 -a 3 -ne 4 ]", True),
        ("[ ( a = b -o c = c ) -a d = e ]", False),
        ("test abc < abd", True),
        ("! [ -f /there ]", False),
        ("[ -s /there -a -e ($root)/there ]", True),
        ("[ -f /gone -o -d /there ]", False),
        ("[ -e (hd9,gpt1)/there ]", None),
        ("[ -e (hd9,gpt1)/there -a a = b ]", False),
        ('[ "$grub_platform" = pc ]', False),
        ("[ x$grub_cpu = xx86_64 ]", True),
        ('[ "$shim_lock" = y ]', None),
        ("[ x$feature_menuentry_id = xy ]", True),
        ("[ $nothing = y ]", True),  # two words, of which neither is empty
        ("false; true", True),
        ("search --set=root --label a", None),
        ('[ "$looked" = 1 ]', None),
        ('[ "$other" = 1 -o "$same" = 2 ]', None),
        ('[ "$same" = 1 ]', True),
        ('[ "$after_loop" = 1 ]', None),
    ],
)
def test_a_condition_is_followed_one_way_where_it_can_be_told(condition: str, told: bool | None) -> None:
    """By what GRUB's `test` makes of it; else the default that is set there is not known, and no entry is claimed."""
    script = """set a="b c"
probe --set looked --fs-uuid $root
if cmostest 1:2; then set other=1; set same=1; else set other=2; set same=1; fi
set after_loop=1
for x in 1 2; do set after_loop=2; done
"""
    text = script + CHOICE.format(entry=entry("/a", "One") + entry("/b", "Two"), condition=condition)
    own = {"grub_platform": "efi", "grub_cpu": "x86_64"}
    found = grub.parse(text, own=own, place="/boot/grub", around=Disk("/there")).chosen
    assert (None if found is None else found.kernel) == {True: "/b", False: "/a", None: None}[told]


@pytest.mark.parametrize(
    ("default", "started"), [("0", "/a"), ("1", ""), ("2", ""), ("9", "/a"), ("Three", "/c"), ("Two", ""), ("$u", "")]
)
def test_an_entry_that_may_not_be_in_the_menu_is_not_counted(default: str, started: str) -> None:
    """What stands behind it may have another number; its name is the same."""
    two, three = entry("/b", "Two"), entry("/c", "Three")
    menu = f"{entry('/a', 'One')}if cmostest 1:2; then\n{two}fi\n{three}"
    assert kernel(f'probe --set=u (hd0)\nset default="{default}"\n{menu}') == started


@pytest.mark.parametrize(
    "head",
    ["--id=b 'B'", "--class x --unrestricted --id b 'B'", "--hotkey=k B --id b", "B --users '' $menuentry_id_option b",
     "--source='{' --id b -- B"],
)  # fmt: skip
def test_options_of_an_entry_stand_anywhere(head: str) -> None:
    """With their value behind a sign, or as the next word."""
    menu = f"set default=b\n{entry('/a')}menuentry {head} {{\n linux /b\n}}\n"
    assert kernel(menu) == "/b"
    (_, found) = grub.parse(menu).entries
    assert found.title == "B"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("load_env -f /x", "p=/x"),
        ("load_env --file=/x place", "p=/x"),
        ("load_env --skip-sig --file x", "p=/boot/grub/x"),
        ("load_env --file /x other", "p="),
        ("load_env -f (hd9)/x", "p=$place"),
        ("probe --set=place --fs-uuid $root", "p=$place"),
        ("probe -s place -u $root", "p=$place"),
        ("regexp --set=1:place '(.*)' x", "p=$place"),
        ("read place", "p=$place"),
        ("set place=1; eval x", "p=$place"),
        ("set place=1; unset place", "p="),
        ("set place=1; if cmostest 1; then unset place; fi", "p=$place"),
    ],
)
def test_what_a_command_finds_out_is_known_or_not(command: str, options: str) -> None:
    """A block of variables is read where it can be; what only the machine knows stays as it is written."""
    text = f"{command}\nmenuentry a {{\n linux /k p=$place\n}}\n"
    (found,) = grub.parse(text, place="/boot/grub", around=Disk()).entries
    assert found.options == options


def test_a_kernel_is_on_the_device_that_its_path_names() -> None:
    """A variable of any name has it, and one that is set to another's; $root is that of the end of the script."""
    found = grub.Device(kind="uuid", value="1-2")
    search = "search --set=drive1 --fs-uuid 1-2\n"
    for line in ("linux ($drive1)//k", "set root=$drive1\n linux /k", "set root=($drive1)\n linux ($root)/k"):
        (item,) = grub.parse(f"{search}menuentry a {{\n {line}\n}}\n").entries
        assert (item.device, item.kernel.lstrip("/"), item.scattered) == (found, "k", False)
    (item,) = grub.parse(f"menuentry a {{\n linux /k\n initrd ($drive1)/i\n}}\n{search}").entries
    assert (item.device, item.initrds, item.scattered) == (None, ("/i",), True)
    (item,) = grub.parse("menuentry a {\n linux /k\n}\nsearch --set=root --fs-uuid 1-2\n").entries
    assert item.device == found
    script = f"{search}set prefix=($drive1)/grub2\nconfigfile $prefix/grub.cfg\n"
    assert grub.parse(script).onward == [(found, "/grub2/grub.cfg")]
