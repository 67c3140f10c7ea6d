"""Flows: who talks to whom, with which process, and the outcome; built from the rows of the network gadgets."""
