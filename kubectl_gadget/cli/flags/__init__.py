"""Flags: their declarations, how kubectl writes them, and what a run or a request is made of when they are read."""
