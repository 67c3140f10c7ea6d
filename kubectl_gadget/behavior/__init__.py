"""Behavior of workloads: facts, baselines of them, and comparisons (docs/behavior.md)."""
