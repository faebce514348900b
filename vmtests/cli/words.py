"""Hints in the words of whoever reads them: they are written with pytest's options, and the command has others."""

OPTIONS = {
    "--vm-accel": "--accel",
    "--vm-contract": "--contract",
    "--vm-login": "--login",
    "--vm-image=": "",  # an argument
    "--vm-module=debug": "--debug",
    "--vm-module": "--module",
    "--vm-results": "--results",
    "--vm-target=gce": "vmtests gce run",
    "Hardware(memory_mib=…)": "--memory",
}
"""What a hint may name, and what it is on the command line; the first that fits counts."""


def of_the_command(hint: str) -> str:
    """Return a hint with the command's options in the place of pytest's."""
    for ours, theirs in OPTIONS.items():
        hint = hint.replace(ours, theirs)
    return hint
