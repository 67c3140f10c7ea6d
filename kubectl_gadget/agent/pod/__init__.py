"""An agent's pod: how the agent that a run sends starts in it, its main process, and what its processes share."""
