"""Talking to a running guest: a root shell on its serial line, ssh, and the facts it tells of itself."""
