"""The service map: who talks to whom, as text, as graphs, and as a live page."""
