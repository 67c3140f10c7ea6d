"""Flags: their declarations, kubectl's syntax for them, and the options of a run or a request that are made from
them."""
