"""Kubernetes objects as plain records, and the meaning of their labels and owners. Needs no connection to a cluster."""
