"""A run as one page that needs no network: read from a directory of results, never from a machine."""
