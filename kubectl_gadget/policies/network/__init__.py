"""NetworkPolicies: read, evaluated for flows, and compiled to the tables of bpf/network_policy.bpf.c."""
