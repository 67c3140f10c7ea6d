"""The main process of an agent's pod: it sleeps, reaps child processes, and ends after a time without a session."""
