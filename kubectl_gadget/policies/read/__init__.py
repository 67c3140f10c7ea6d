"""From TracingPolicy YAML to the model: schema, names, lists, hooks, selectors, actions, values."""
