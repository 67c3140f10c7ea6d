"""Formats for profiles: folded stacks, flame graphs, pprof, speedscope."""
