"""What tracing adds to the start of a program, compared with execsnoop of libbpf-tools and of bcc.

    sudo .venv/bin/python -m bench.exec [--rounds 5] [--count 5000] [--only TEXT] [--vm] [--json FILE]

The loop is linked statically, since the dynamic loader takes a third of a program's start and most of its noise. The
trap: starting a program takes a hundred times as long as a hook, so the added time is near the noise; read `added`
together with the spread, and see bench.programs for the kernel's own count.
"""

from bench.overhead import Load, main, our_tracer, peer

LOAD = Load("exec_loop", "program", 5_000, compiler_flags=("-static",))
ROW = b"exec_loop.*done"
TRACERS = [
    our_tracer("trace exec", ("trace", "exec", "--comm", LOAD.loop), ROW),
    our_tracer("trace process", ("trace", "process"), ROW),
    *peer("execsnoop", ("-n", LOAD.loop), ROW),
]

if __name__ == "__main__":
    main(__doc__, {"exec": (LOAD, TRACERS)})
