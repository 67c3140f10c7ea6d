"""The sources of a session: one for each gadget of RUN, by its kind (docs/design/agent.md)."""
