"""The engine of policies on a node: hooks, scopes, what they follow and remember, and what they have the agent do."""
