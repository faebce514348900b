"""QEMU as a target: machines that are built, kept, forked, followed and asked on this host."""
