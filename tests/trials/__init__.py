"""Trials of the whole from outside: processes, disks, browsers, other people's environments. They take minutes."""
