"""Tests of what this host gives."""
