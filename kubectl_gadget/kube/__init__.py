"""Kubernetes: the API, kubeconfigs, watched objects as plain records, selectors."""
