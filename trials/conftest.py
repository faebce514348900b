"""Trials use what the tests use."""

from tests.conftest import contract, run, toolbox

__all__ = ["contract", "run", "toolbox"]
