"""Kubernetes: choose nodes and pods, start and remove agents, open the exec stream to them."""
