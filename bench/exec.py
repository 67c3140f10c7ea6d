"""What tracing adds to the start of a program, compared with execsnoop of libbpf-tools and of bcc.

    sudo .venv/bin/python -m bench.exec [--rounds 5] [--count 5000] [--only TEXT] [--vm] [--json FILE]

The loop executes a program without libraries, whose start takes three times as long as the rest and has most of the
noise. Starting a program still takes ten times as long as what is added; read `added` together with the spread, and see
bench.programs for the kernel's own count.
"""

from bench.overhead import Load, main, our_tracer, peer

DONE = "exec_loop_done"
LOAD = Load("exec_loop", "program", 5_000, executed=DONE, real_time=True)
ROW = b"exec_loop_done.*done"
TRACERS = [
    our_tracer("trace exec", ("trace", "exec", "--comm", DONE), ROW),
    our_tracer("trace process", ("trace", "process"), ROW),
    *peer("execsnoop", ("-n", DONE), ROW),
]

if __name__ == "__main__":
    main(__doc__, {"exec": (LOAD, TRACERS)})
