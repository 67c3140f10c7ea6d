"""Runs bcc tools and bpftrace programs on several nodes."""
