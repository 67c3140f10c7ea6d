"""What workloads do, as facts; baselines of them; and what is new in one compared with another (docs/behavior.md)."""
