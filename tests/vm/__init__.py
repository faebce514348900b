"""Tests of vmtests.vm."""
