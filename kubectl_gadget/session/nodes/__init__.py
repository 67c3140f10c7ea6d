"""The nodes of a run: how each agent is reached and asked, its frames, and what of its time is complete."""
