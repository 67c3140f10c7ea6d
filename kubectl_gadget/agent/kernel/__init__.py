"""The abilities of this kernel: features, hooks, ways to attach to them, and the reason why it refused a program."""
