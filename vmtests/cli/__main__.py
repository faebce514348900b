"""`python -m vmtests.cli` is `vmtests`."""

import contextlib
import sys

from vmtests.cli import main

with contextlib.suppress(BrokenPipeError):
    sys.exit(main())
