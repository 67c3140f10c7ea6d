"""What survives: churn, loss at full speed, faults, hostile containers, bad input (docs/reliability.md)."""
