"""The agent that is sent with a run: how it starts in any pod with Python, and unpacks its modules and libraries."""
