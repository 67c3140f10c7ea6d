"""The command line: commands, flags, help, completion. No logic; heavy modules are imported only when needed."""
