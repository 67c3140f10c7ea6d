"""Rows: a node's bytes become columns, with names, in order of time."""
