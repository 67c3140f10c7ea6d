"""What profiling all CPUs 99 times a second costs a program, compared with profile of libbpf-tools, of bcc, and perf
record.

    sudo .venv/bin/python -m bench.profile [--rounds 5] [--count 5000] [--only TEXT] [--vm] [--json FILE]

The program only calculates, so that nothing but samples interrupts it. The traps: the cost of a sample is far below the
noise of one run; and the others resolve symbols at their end, or never (perf), which their CPU time does not include,
while our agent resolves those of the whole machine as it runs.
"""

from bench.overhead import Load, main, our_tracer, peer, perf

LOAD = Load("spin_loop", "round", 5_000)
TRACERS = [
    our_tracer("profile cpu", ("profile", "cpu"), b"", 0),
    our_tracer("profile cpu 999 Hz", ("profile", "cpu", "--frequency", "999"), b"", 0),
    *peer("profile", ("-F", "99"), b"", 0),
    *perf(("-F", "99", "-a", "-g")),
]

if __name__ == "__main__":
    main(__doc__, {"profile": (LOAD, TRACERS)})
