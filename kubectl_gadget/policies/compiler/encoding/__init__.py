"""Encodes what the kernel reads and compares as bytes for BPF maps."""
