"""Turns columns into output units: rows of cells, JSON lines, records."""
