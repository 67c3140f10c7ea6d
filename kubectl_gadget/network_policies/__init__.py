"""NetworkPolicy carried out by agents: policies and the cluster's objects become tables of bpf/network_policy.bpf.c."""
