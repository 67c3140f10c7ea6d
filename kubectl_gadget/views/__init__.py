"""From columns to what is shown: rows of cells, JSON lines, records."""
