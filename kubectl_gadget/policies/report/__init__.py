"""Reports about a policy: whether nodes support it, what it costs, what it misses, what its fields mean."""
