"""What tracing opens costs the traced program and the node, compared with opensnoop of libbpf-tools and of bcc.

    sudo .venv/bin/python -m bench.open [--rounds 5] [--count 1000000] [--only TEXT] [--vm] [--json FILE]

Without --vm, bcc's tool is included only if the kernel's headers are installed.
"""

from bench.overhead import Load, main, our_tracer, peer

LOAD = Load("open_loop", "open+close", 1_000_000)
ROW = b"/etc/hostname"
TRACERS = [
    our_tracer("trace open", ("trace", "open", "--comm", LOAD.loop), ROW),
    *peer("opensnoop", ("-n", LOAD.loop), ROW),
]

if __name__ == "__main__":
    main(__doc__, {"open": (LOAD, TRACERS)})
