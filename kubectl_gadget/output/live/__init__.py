"""A table that is redrawn in place, and the keys that control it."""
