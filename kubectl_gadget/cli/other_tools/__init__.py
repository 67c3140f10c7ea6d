"""Commands that run tools of others on nodes: `bcc` and `bpftrace`."""
