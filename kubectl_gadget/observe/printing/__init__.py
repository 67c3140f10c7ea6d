"""Events of a story as lines, as JSON for other readers, and as a tree."""
