"""Which gadgets, with which parameters, make up a command that shows more than one gadget's rows."""
