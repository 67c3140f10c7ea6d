"""Policies: reads, checks and compiles TracingPolicy YAML, installs policies, and reacts to their events."""
