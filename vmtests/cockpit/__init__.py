"""A person at a boot: stages, console and verdict as they come, and what can be done with the machine meanwhile."""
