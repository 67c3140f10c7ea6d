"""One module for each command, but for those about policies."""
