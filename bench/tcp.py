"""What tracing TCP costs each connection and each 64 KiB, compared with tcplife, tcpconnect and tcptracer.

    sudo .venv/bin/python -m bench.tcp [--rounds 5] [--count N] [--only TEXT] [--vm] [--json FILE]

Both ends are in one process on loopback, so one connection is two sockets. tcplife has one row where ours has several;
tcpconnect and tcptracer of libbpf-tools need kprobes, which not every kernel has (--vm has them).
"""

from bench.overhead import Load, main, our_tracer, peer

PORT = "7321"
ROW = rb"\b7321\b"
CONNECT = Load("tcp_loop", "connection", 20_000, ("connect",), real_time=True)
STREAM = Load("tcp_loop", "64 KiB", 50_000, ("stream",), real_time=True)
FLOWS = ("flows", "--port", PORT)

CONNECT_TRACERS = [
    our_tracer("trace tcp --close", ("trace", "tcp", "--close", "--port", PORT), ROW, 2),
    our_tracer("trace tcp", ("trace", "tcp", "--port", PORT), ROW, 4),
    our_tracer("flows", FLOWS, b'"summary": ?"connect', 0),
    *peer("tcplife", ("-L", PORT), ROW),
    *peer("tcpconnect", ("-P", PORT), b"tcp_loop"),
    *peer("tcptracer", (), b"tcp_loop", 0),
]
STREAM_TRACERS = [
    our_tracer("trace tcp", ("trace", "tcp", "--port", PORT), ROW, 0),
    our_tracer("flows", FLOWS, ROW, 0),
    *peer("tcplife", ("-L", PORT), ROW, 0),
    *peer("tcptop", ("1",), ROW, 0),
]

if __name__ == "__main__":
    main(__doc__, {"connect": (CONNECT, CONNECT_TRACERS), "stream": (STREAM, STREAM_TRACERS)})
