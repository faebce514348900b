"""`python -m vmtests.cli` is `vmtests`."""

import sys

from vmtests.cli import main

sys.exit(main())
