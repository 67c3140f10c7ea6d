"""Which process and which cgroup belong to which container, and which containers are wanted."""
