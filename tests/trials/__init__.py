"""Trials of the whole from outside: processes, disks, other people's environments. They take minutes."""
