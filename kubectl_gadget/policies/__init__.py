"""Policies: what TracingPolicy YAML says, checked, resolved, and what it means. No BPF and no cluster here."""
