"""A table that is drawn again in place, and the keys that steer it."""
