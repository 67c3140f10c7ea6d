"""Where the shared libraries that travel with the agent come from."""
