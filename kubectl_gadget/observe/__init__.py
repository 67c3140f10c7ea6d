"""The story of workloads: processes joined with what they did; as lines, as JSON for other readers, as a tree."""
