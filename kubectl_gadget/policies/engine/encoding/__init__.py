"""What the kernel reads and compares, as bytes of its maps."""
