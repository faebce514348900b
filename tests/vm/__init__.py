"""Tests of machines as tests use them."""
