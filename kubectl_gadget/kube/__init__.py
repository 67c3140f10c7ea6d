"""Objects of Kubernetes as plain records, and what their labels and owners mean. No connection to any cluster."""
