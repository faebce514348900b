"""Tests of QEMU as a target."""
