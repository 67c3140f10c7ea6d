"""From policies to what the agents load, and from records to what happened. No I/O; docs/design/policies.md."""
