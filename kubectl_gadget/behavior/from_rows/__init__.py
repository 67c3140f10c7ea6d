"""From rows of gadgets to facts: programs, paths and other ends, without what differs between two runs."""
