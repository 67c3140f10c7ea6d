"""The check of a baseline: what is new in this run's behavior."""
