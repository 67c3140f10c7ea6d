"""Flows: who talks to whom, with which process, and what became of it; made of the rows of the network gadgets."""
