"""What both ends of a connection saw, joined to one flow."""
