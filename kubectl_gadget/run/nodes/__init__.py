"""The nodes of a run: how each agent is reached and asked, its frames, and for what time they are complete."""
