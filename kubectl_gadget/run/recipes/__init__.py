"""The gadgets and parameters of each command that shows more than one gadget's rows."""
