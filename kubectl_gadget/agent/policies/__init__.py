"""The policy engine on a node: hooks, scopes, what policies follow and remember, and the agent's reactions to
events."""
