"""Compute Engine: images, instances and their consoles by the real clients, and nothing left behind.

Google's libraries are imported when they are first needed: that takes seconds.
"""
