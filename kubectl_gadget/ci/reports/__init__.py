"""Reports made of one list of findings, one module for each kind."""
