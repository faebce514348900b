"""The hosts that are tried."""

from dataclasses import dataclass

_BASE = ("make", "git", "python3", "ca-certificates", "procps", "util-linux", "passwd")
_ADMINISTRATOR = ("python3-venv", "mmdebstrap", "bubblewrap")
"""What somebody without sudo has to be given."""

_OWN = {
    "bookworm": ("qemu-system-x86", "qemu-utils", "ovmf", "erofs-utils", "systemd", "nix-bin"),
    "trixie": (
        *("qemu-system-x86", "qemu-utils", "ovmf", "erofs-utils", "systemd", "systemd-repart", "nix-bin"),
        *("systemd-boot-efi", "dosfstools", "mtools", "fdisk", "e2fsprogs", "cpio", "zstd", "pigz", "kmod", "swtpm"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A host: its release, who works there, and what it has.

    `own` is QEMU and the other tools as Debian packages; `confined` is what a container takes away; without `keys`
    there is no key of Debian 13's archive, as on Ubuntu 24.04.
    """

    suite: str
    user: str
    own: bool = False
    confined: bool = False
    keys: bool = True

    @property
    def name(self) -> str:
        """What it is selected by."""
        words = ["debian12" if self.suite == "bookworm" else "debian13", self.user]
        marks = (("own", self.own), ("confined", self.confined), ("nokeys", not self.keys))
        return "-".join([*words, *(word for word, on in marks if on)])

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that are there before anything of ours is."""
        given = () if self.user == "root" else _ADMINISTRATOR
        return (*_BASE, *given, *(_OWN[self.suite] if self.own else ()))

    @property
    def description(self) -> tuple[str, str, str]:
        """Release, who, and what there is, for a table."""
        has = "QEMU and more of its own" if self.own else "bare"
        denied = ["no namespaces, no mounts, as in a container"] if self.confined else []
        denied += [] if self.keys else ["no key of Debian 13's archive"]
        release = "Debian 12" if self.suite == "bookworm" else "Debian 13"
        return release, "root" if self.user == "root" else "ordinary user", "; ".join([has, *denied])


CELLS = (
    *(
        Cell(suite=suite, user=user, own=own)
        for suite in ("trixie", "bookworm")
        for user in ("root", "user")
        for own in (False, True)
    ),
    Cell(suite="trixie", user="root", confined=True),
    Cell(suite="trixie", user="user", confined=True),
    Cell(suite="trixie", user="user", own=True, confined=True),
    Cell(suite="bookworm", user="root", confined=True),
    Cell(suite="bookworm", user="user", confined=True, keys=False),
)
