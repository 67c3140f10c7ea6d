"""What a session runs: one source for each gadget of RUN, by its kind (docs/design/agent.md)."""
