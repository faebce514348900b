"""Disk images as other people make them, of Debian's own tools: `make images`."""
