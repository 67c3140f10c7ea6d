"""From what the user selected to nodes, pods and containers, as they come and go."""
