"""Reads TracingPolicy YAML into the model: schema, names, lists, hooks, selectors, actions, values."""
