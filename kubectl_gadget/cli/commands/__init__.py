"""One module for each command, except those about policies."""
