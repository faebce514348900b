"""Tests of what is written for people: every command, link and picture."""
