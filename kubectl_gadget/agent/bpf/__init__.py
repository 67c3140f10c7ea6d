"""libbpf bindings, and the parts of one BPF object: types, maps, programs, hooks, rings, and kernel refusals."""
