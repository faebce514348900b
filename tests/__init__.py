"""Tests of the framework: no VM, no sleeping; the directories mirror the package."""
