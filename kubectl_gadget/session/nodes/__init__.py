"""The nodes of a run: how each agent is reached and what it is asked, its frames, and for what time they are
complete."""
