"""Turns observations of containers into objects to apply: policies, profiles, patches. No I/O except in files.py."""
