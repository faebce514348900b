"""Tests of vmtests.guest."""
