"""The agent that travels with a run: started in any pod with Python, its modules and libraries unpacked."""
