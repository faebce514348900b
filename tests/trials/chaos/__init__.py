"""What vmtests leaves, and says, when the worst happens at any step of its work; `make chaos` is the long form."""
