"""What the user types: commands, flags, help, completion. No logic, and nothing heavy imported before it is needed."""
