"""What each piece of work imports and looks for, once: they are forked from the process that has imported this."""

import vmtests.report.page  # noqa: F401
from vmtests.host import tools

TOOLBOX = tools.find()
