"""The suite: one file per promise that an image makes, one sentence per test."""
