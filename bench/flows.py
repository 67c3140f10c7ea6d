"""What `kubectl gadget flows` costs the client, what it keeps in memory, and what it adds to a large body over HTTP/2.

    .venv/bin/python bench/flows.py --client [--nodes 1000] [--flows 100]   rows of many nodes, made once, on one core;
                                             [--reference FOLDER]          and another version's, in turns
    sudo .venv/bin/python bench/flows.py --open 100000                     memory with that many open flows
    sudo .venv/bin/python bench/flows.py --http2 [--megabytes 1000]        a large body over HTTP/2 in the clear

What it costs a connection and a stream: bench/tcp.py. Python makes the rows, which takes longer than what is measured;
so only the client's own CPU time counts.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.overhead import children_of, cpu_ns, until_attached
from bench.rounds import Discard, alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.formats import WatchedSink, make_sink
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.page import LivePage
from kubectl_gadget.flows.run import FlowTransform
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.wire.agent_messages import ContainerChanges

OURS = [sys.executable, "-m", "kubectl_gadget.cli.main", "flows", "--local", "--host", "-o", "json"]
ADDRESSES = ("10.99.0.1", "10.99.0.2")
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NETWORK = 0x40000000
_END_SECONDS = 90.0


# --- the client


def rows_of(node: int, second: int, flows: int) -> bytes:
    """One node's events of its clients' flows in one second, as ring buffer bytes: opened, connected, closed."""
    writer = RowWriter(load_gadget("trace_tcp").record)
    unknown = (1 << 64) - 1
    for number in range(flows):
        ends: dict[str, Value] = {
            "local": bytes(10) + b"\xff\xff\x0a" + bytes([node >> 8 & 255, node & 255, number % 30]),
            "remote": bytes(10) + b"\xff\xff\x0a\xfe" + bytes([number % 7, number % 5]),
            "local_port": 32768 + (second * flows + number) % 28000,
            "remote_port": 80,
        }
        common: dict[str, Value] = {
            "cgroup": number % 30,
            "pid": 100 + number % 30,
            "comm": b"curl",
            "initiator": 1,
            "family": 2,
        }
        begun = second * 1_000_000_000 + number * (1_000_000_000 // flows)
        steps: tuple[tuple[int, int, dict[str, int]], ...] = (
            (4, 0, {}),
            (1, 100_000, {"rtt": 90_000}),
            (3, 900_000, {"sent": 80, "received": 1200, "end": 1, "duration": 900_000}),
        )
        for operation, after, more in steps:
            numbers = {"sent": unknown, "received": unknown, "rtt": unknown, "duration": unknown} | more
            writer.add(b"", begun + after, {"operation": operation, **common, **ends, **numbers})
    return writer.take()


FORMATS = ("json", "table", "csv", "mermaid", "web")


def client(format: str, nodes: int, flows: int, seconds: int = 3) -> dict[str, float]:
    """Decodes, joins, merges, makes flows, and formats them. Times are the client's alone: rows are made before each
    second."""
    gadget = load_gadget("trace_tcp")
    identities = [Identity(f"node-{number}") for number in range(nodes)]
    container = {"id": "c", "namespace": "default", "pod": "web", "container": "main", "kind": "container"}
    merge = TimeMerge(200_000_000)
    for number, identity in enumerate(identities):
        identity.apply(
            ContainerChanges.from_json({"containers": [container], "cgroups": {str(n): "c" for n in range(30)}}), 0.0
        )
        merge.join(number)
    transform = FlowTransform(FlowTable(AddressBook()), FlowFilter(internal=False))
    web = format == "web"
    sink = make_sink(OutputOptions(format="mermaid" if web else format), Discard(), None)
    if web:
        sink = WatchedSink(sink, LivePage().add_all)
    taken, rows = 0.0, 0
    for second in range(seconds):
        of_nodes = [rows_of(node, second, flows) for node in range(nodes)]
        begun = time.process_time()
        now = (second + 1) * 1_000_000_000
        for number, payload in enumerate(of_nodes):
            batch: Batch = decode(gadget, identities[number].node, payload)
            batch.owners = identities[number].lookup(batch.cgroups())
            merge.add(batch, now)
            merge.complete(number, now)
        released = merge.release(now)
        rows += len(released)
        sink.write(transform.apply(released))
        taken += time.process_time() - begun
    return {
        "flows_per_s": rows / 3 / taken,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "second_mb": sum(map(len, of_nodes)) / (1 << 20),
    }


def client_of(format: str, script: Path = Path(__file__), *, nodes: int, flows: int) -> dict[str, float]:
    """The same in a process of its own, by the version whose script this is."""
    words = [sys.executable, str(script), "--client", "--nodes", str(nodes), "--flows", str(flows), "--one", format]
    found: dict[str, float] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def clients(rounds: int, nodes: int, flows: int, reference: Path | None) -> dict[str, list[dict[str, float]]]:
    """Runs each format in its own process, so that none inherits another's memory; prints the table."""

    run = partial(client_of, nodes=nodes, flows=flows)
    variants = {format: partial(run, format) for format in FORMATS}
    if reference is not None:
        others = {f"{format}, reference": partial(run, format, reference / "bench/flows.py") for format in FORMATS}
        variants = {name: (variants | others)[name] for format in FORMATS for name in (f"{format}, reference", format)}
    results = alternate(variants, rounds)
    print_table(
        f"The client, one core: {nodes:,} nodes with {flows} connections/s each, which is {nodes * flows:,} flows/s",
        ("", "connections/s of CPU, median (min to max)", "rows/s", "MB", "of which the rows of one second, MB"),
        [
            [
                name,
                spread([found["flows_per_s"] for found in each]).text(),
                f"{spread([found['flows_per_s'] for found in each]).median * 3:,.0f}",
                f"{max(found['memory_mb'] for found in each):.0f}",
                f"{each[0]['second_mb']:.0f}",
            ]
            for name, each in results.items()
        ],
    )
    return results


# --- the node


@contextlib.contextmanager
def tracer(command: list[str] | None) -> Iterator[subprocess.Popen[bytes] | None]:
    """Runs us during the block; the output is discarded."""
    if command is None:
        yield None
        return
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until_attached(process)
        yield process
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_END_SECONDS)


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces connected by a veth pair."""
    names = tuple(f"flows-bench-{os.getpid()}-{end}" for end in "ab")

    def run(*words: str) -> None:
        subprocess.run(words, check=True)

    for name in names:
        run("ip", "netns", "add", name)
    try:
        run("ip", "-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                run("ip", "-n", name, "link", "set", device, "up")
        yield names[0], names[1]
    finally:
        for name in names:
            run("ip", "netns", "del", name)


def enter(name: str) -> None:
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if _LIBC.setns(descriptor, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)


def serve(name: str) -> tuple[int, int]:
    """A child that accepts connections, reads to the end, and closes. Returns its PID and port."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, int(os.read(reader, 10))
    enter(name)
    with socket.create_server((ADDRESSES[1], 0), backlog=4096) as server:
        os.write(writer, str(server.getsockname()[1]).encode())
        buffer = bytearray(1 << 20)
        while True:
            accepted, _ = server.accept()
            with accepted, contextlib.suppress(ConnectionResetError):
                while accepted.recv_into(buffer):
                    pass


def stream(name: str, port: int, megabytes: int, begins: bytes = b"", data: bytes = bytes(1 << 20)) -> float:
    """One connection that sends `begins` and then that many MiB in pieces of 1 MiB. Returns ns per KiB."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        enter(name)
        with socket.create_connection((ADDRESSES[1], port)) as client:
            client.sendall(begins)
            begun = time.perf_counter()
            for _ in range(megabytes):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
        os.write(writer, str((time.perf_counter() - begun) / megabytes / 1024 * 1e9).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return float(os.read(reader, 100))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame: RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(rounds: int, megabytes: int) -> None:
    """A cleartext HTTP/2 request with a large body, alternately without and with us; CPU time is of all our
    processes."""
    # :method POST, :scheme http, :path /: from the static table (RFC 7541, appendix A).
    begins = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x83\x86\x84")
    data = frame(0, 0, 1, bytes((1 << 14) - 9)) * 64
    variants = {"nothing": None, "flows": OURS, "flows --http-rows": [*OURS, "--http-rows"]}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with namespaces() as (here, there):
        pid, port = serve(there)
        try:
            for _ in range(rounds):
                for name, command in variants.items():
                    with tracer(command) as process:
                        ours = descendants(process.pid) if process else []
                        before = sum(map(cpu_ns, ours))
                        each = stream(here, port, megabytes, begins, data)
                        time.sleep(1)
                        found[name].append((each, (sum(map(cpu_ns, ours)) - before) / 1e9))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    sys.stdout.write(f"{megabytes} MiB over HTTP/2    ns/KiB   our CPU, s   (medians of {rounds})\n")
    for name, results in found.items():
        each, busy = (statistics.median(column) for column in zip(*results, strict=True))
        sys.stdout.write(f"{name:22} {each:9.0f} {busy:12.2f}\n")


def memory_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def descendants(pid: int) -> list[int]:
    return [pid, *(below for child in children_of(pid) for below in descendants(child))]


def open_flows(count: int) -> None:
    """Memory of client and agent before and after UDP flows that stay open, from many ports to a few."""
    with namespaces() as (here, _), tracer([*OURS, "--no-dns-rows"]) as process:
        assert process is not None
        before = {pid: memory_mb(pid) for pid in descendants(process.pid)}
        pid = os.fork()
        if not pid:
            enter(here)
            for number in range(count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.bind((ADDRESSES[0], 1024 + number % 64000))
                    sender.sendto(b"x", (ADDRESSES[1], 2000 + number // 64000))
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(5)
        for pid, megabytes in before.items():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            sys.stdout.write(f"{count:,} flows: {megabytes:.0f} -> {memory_mb(pid):.0f} MB  {words[:70]}\n")


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--client", action="store_true")
    parser.add_argument("--one", choices=FORMATS, help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, metavar="FOLDER", help="a built worktree of another version")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--flows", type=int, default=100)
    parser.add_argument("--open", type=int, default=0)
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(client(options.one, options.nodes, options.flows)))
    elif options.client:
        print_machine()
        machine = describe_machine()
        write_json(options.json, machine, clients(options.rounds, options.nodes, options.flows, options.reference))
    elif options.open:
        open_flows(options.open)
    elif options.http2:
        http2(options.rounds, options.megabytes)
    else:
        parser.error("one of --client, --open and --http2 is needed; for what flows costs a connection, see bench.tcp")


if __name__ == "__main__":
    main()
