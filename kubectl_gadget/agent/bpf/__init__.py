"""libbpf, and what one BPF object is: its types, maps, programs, hooks, rings, and why a kernel refused it."""
