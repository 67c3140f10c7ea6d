"""The gadgets and parameters behind each command that shows more than one gadget's rows."""
