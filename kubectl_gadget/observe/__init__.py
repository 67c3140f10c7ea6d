"""The story of workloads: processes and what they did, joined; as lines, as JSON that others read, as a tree."""
