"""Interprets the fields of a batch as columns of values, for filters and for output."""
