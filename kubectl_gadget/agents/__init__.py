"""Agents in a cluster: their pods, images and payload; started on demand, deployed, contained, removed."""
