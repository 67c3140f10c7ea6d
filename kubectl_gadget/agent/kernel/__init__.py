"""What this kernel can do: features, hooks, ways to attach to them, and why it refused a program."""
