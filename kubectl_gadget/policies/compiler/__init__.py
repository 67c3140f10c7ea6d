"""Compiles policies for the agents and turns their records into matches. No I/O; docs/design/policies.md."""
