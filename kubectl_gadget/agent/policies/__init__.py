"""The policy engine on a node: hooks, scopes, what policies follow and remember, and reactions to events."""
