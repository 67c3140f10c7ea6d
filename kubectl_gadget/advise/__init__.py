"""Turns observations of containers into objects to apply: policies, profiles, patches. I/O is in advice_files.py."""
