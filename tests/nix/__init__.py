"""Tests of the Nix side, run by real Nix."""
