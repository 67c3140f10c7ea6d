"""Finds the container of each process and cgroup, and the containers that are wanted."""
