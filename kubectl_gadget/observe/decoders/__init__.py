"""Records of gadgets and policies become the events of a story."""
