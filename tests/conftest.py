"""What the tests of several rooms use."""

from collections.abc import Callable

import pytest
from hypothesis import settings

# How long an example takes is the host's affair: machines may boot beside the tests.
settings.register_profile("vmtests", deadline=None)
settings.load_profile("vmtests")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """A function that runs pytest with the plugin in `pytester`'s directory, with more arguments if need be.

    In this process and without Hypothesis, which takes a second to import and has no part in it.
    """

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)

    return run
