"""What machines and images are made for, by the names that UEFI, Linux, QEMU, Debian and Compute Engine give it.

Another architecture is another row here. What no name says stands elsewhere: the devices of its board in
`machine/argv.py`, the program that tries an accelerator in `host/probe.py`, those of a fork's first command in
`guest/elf.py`, and how its kernel begins in `image/pe.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An architecture by its names."""

    uname: frozenset[str]
    """What uname(2) calls a machine of it."""
    shown: str
    """In sentences, and in the types of the Discoverable Partitions Specification."""
    qemu_name: str
    board: str
    """QEMU's machine type: q35, because OVMF offers secure boot on no other."""
    board_version: str
    """A version of it, which has to match a pattern in the descriptor of its firmware."""
    efi: str
    """UEFI 2.10, section 3.5.1.1, in lower case as boot loaders have it in the names of their files."""
    pe_machine: int
    """The `Machine` field of an EFI program's header (PE/COFF)."""
    console: str
    """The first serial port, as Linux calls it."""
    debian: str
    triplet: str
    """GNU's name, under which Debian keeps libraries."""
    interpreter: str
    """Where programs look for the dynamic loader (the psABI of each architecture)."""
    compute_engine: str

    @property
    def qemu(self) -> str:
        """QEMU's program."""
        return f"qemu-system-{self.qemu_name}"

    @property
    def fallback(self) -> str:
        """The program that firmware starts where no variable names another, by its path on the ESP."""
        return f"/EFI/BOOT/BOOT{self.efi.upper()}.EFI"

    @property
    def systemd_boot(self) -> str:
        """The file of systemd-boot, without its directory."""
        return f"systemd-boot{self.efi}.efi"


X86_64 = Architecture(
    uname=frozenset({"x86_64", "AMD64"}),
    shown="x86-64",
    qemu_name="x86_64",
    board="q35",
    board_version="pc-q35-10.0",
    efi="x64",
    pe_machine=0x8664,
    console="ttyS0",
    debian="amd64",
    triplet="x86_64-linux-gnu",
    interpreter="/lib64/ld-linux-x86-64.so.2",
    compute_engine="X86_64",
)

GUEST = X86_64
"""The one that machines and images have today."""
