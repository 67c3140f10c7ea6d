"""Output for people: help pages, tables, and our names for commands and flags of other tools."""
