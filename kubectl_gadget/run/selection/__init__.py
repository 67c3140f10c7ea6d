"""Turns the user's selection into nodes, pods and containers, as these come and go."""
