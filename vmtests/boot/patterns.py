"""How failing boots look: one table for the lines of the console, one for the events of the machine.

A new cause is a new row. Regular expressions are matched at the start of a normalised line (`stages.normalise`), have
no nested repetition, and give their named groups to the sentence. Of the rows that match, the first counts: what is
nearer to the cause stands before what only says that something failed.
"""

from vmtests.boot import patterns_kernel, patterns_loading, patterns_machine, patterns_system

LINE_RULES = (*patterns_loading.RULES, *patterns_kernel.RULES, *patterns_system.RULES)
EVENT_RULES = patterns_machine.RULES
