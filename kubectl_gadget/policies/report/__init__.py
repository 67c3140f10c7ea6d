"""What is said about a policy: whether nodes can take it, what it costs and misses, what its fields mean."""
