"""One module for each command, except those about policies, about recordings, and for tools of others."""
