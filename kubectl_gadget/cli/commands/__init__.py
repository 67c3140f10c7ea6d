"""One module for each command, except those about policies and for tools of others."""
