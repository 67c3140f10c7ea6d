"""What policies mean, as plain Python: for recorded rows, and as what the engine is compared with."""
