"""Tests of following a boot."""
