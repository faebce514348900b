"""Hosts as people have them, made as trees; the README's commands are run in each (`make hosts`)."""
