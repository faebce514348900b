"""What is public for tests of what is built upon this."""
