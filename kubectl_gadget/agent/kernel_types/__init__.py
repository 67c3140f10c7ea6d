"""The kernel's types that an object reads, without all others."""
