"""Policies: reads TracingPolicy YAML, checks it, resolves it and compiles it. No BPF and no cluster access here."""
