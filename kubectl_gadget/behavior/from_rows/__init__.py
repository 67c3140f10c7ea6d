"""Turns rows of gadgets into facts: programs, paths and peers, without what differs between two runs."""
