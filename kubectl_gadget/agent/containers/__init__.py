"""Which process and which cgroup belong to which container, and which of them are wanted."""
