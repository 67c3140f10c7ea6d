"""One module for each command, except those that have a folder of their own."""
