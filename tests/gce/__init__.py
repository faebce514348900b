"""Tests of Compute Engine: real clients, and an emulator with fake machines."""
