"""What is made of one list of findings, a module per kind of report."""
