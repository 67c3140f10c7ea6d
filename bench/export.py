"""How many events a second one core exports as OTLP, from many nodes of a double; and memory while a collector is down.

    .venv/bin/python -m bench.export [--nodes 1000] [--rates 50000,100000,300000] [--seconds 20] [--shards 1] [--turn S]
    .venv/bin/python -m bench.export --encode [--rounds 3]          only the encoders, from memory
    .venv/bin/python -m bench.export --down [--seconds 300]         nobody listens

Each client has one CPU, and shares it with no other client if there are enough. The double and the collector share the
machine, so look at the CPU time as well. With --shards N there are N clients, each with the nodes of one label. Rows
are not printed, as in the pod of `export install`.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from bench.attach import CLIENT, replay
from bench.overhead import cpu_ns, peak_mb, until_attached
from bench.replay import CONTAINERS, Opens
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter
from kubectl_gadget.wire.agent_messages import ContainerChanges

_END_SECONDS = 90.0
_PER_BATCH = 20_000
LOGS, SPANS = "log records of opens", "spans of HTTP requests"


# Encoders.


def encoders(events: int, rounds: int) -> dict[str, list[float]]:
    """Return rows per second of CPU time."""
    runs = {LOGS: partial(_logs, events), SPANS: partial(_spans, events)}
    return alternate(runs, rounds)


def _logs(events: int) -> float:
    from kubectl_gadget.export.otlp import LogRecords  # needs packages that are not everywhere
    from kubectl_gadget.export.sending import ROWS_AT_ONCE

    gadget = load_gadget("trace_open")
    payload = Opens(gadget, _PER_BATCH).at(0, 10**9)
    encoder, count, begun = LogRecords([gadget], {}), 0, time.process_time()
    for batch in _batches(gadget, payload, events):
        for rows in Rows([batch]).chunks(ROWS_AT_ONCE):
            encoder.encode(rows)
        count += len(batch)
    return count / (time.process_time() - begun)


def _spans(events: int) -> float:
    from kubectl_gadget.export.otlp_traces import SpanRecords
    from kubectl_gadget.export.sending import ROWS_AT_ONCE

    gadget = load_gadget("trace_http")
    payload = _requests(gadget, _PER_BATCH)
    encoder, count, made, begun = SpanRecords({}), 0, 0, time.process_time()
    for number, batch in enumerate(_batches(gadget, payload, events)):
        made += encoder.tick(number * 10**9).spans
        for rows in Rows([batch]).chunks(ROWS_AT_ONCE):
            made += encoder.encode(rows.joined[0]).spans
        count += len(batch)
    made += encoder.flush().spans
    took = time.process_time() - begun
    if made != count:
        raise SystemExit(f"{count} requests became {made} spans")
    return count / took


def _batches(gadget: Gadget, payload: bytes, events: int) -> Iterator[Batch]:
    identity = Identity("node-1")
    identity.apply(ContainerChanges.from_json(CONTAINERS), 0.0)
    for _ in range(max(1, events // _PER_BATCH)):
        batch = decode(gadget, "node-1", memoryview(payload))
        batch.name_owners(identity.lookup)
        yield batch


def _requests(gadget: Gadget, count: int) -> bytes:
    """Return both ends of HTTP requests, one after the other."""
    writer = RowWriter(gadget.record)
    for number in range(count):
        request, role = number // 2, 1 + number % 2
        ends = [(bytes((10, 1, request % 30, 2)), 32768 + request % 28000), (bytes((10, 2, 0, request % 7)), 80)]
        (local, local_port), (remote, remote_port) = ends if role == 1 else ends[::-1]
        writer.add(
            b"",
            10**9 + request * 50_000,
            {
                "cgroup": 100 + number % 60,
                "pid": number % 30000,
                "comm": b"nginx",
                "latency": 1_000_000 * role,
                "role": role,
                "status": 200 if request % 50 else 503,
                "protocol": "HTTP/1.1",
                "method": "GET",
                "target": f"/cart?id={request % 500}",
                "host": "cart",
                "local": local,
                "local_port": local_port,
                "remote": remote,
                "remote_port": remote_port,
                "grpc_status": (1 << 64) - 1,
            },
        )
    return writer.take()


# A collector, which counts.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Collector"

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
        # After the answer: a collector counts for nobody.
        request = ExportLogsServiceRequest.FromString(body)
        found = sum(len(scope.log_records) for group in request.resource_logs for scope in group.scope_logs)
        with self.server.count.get_lock():
            self.server.count.value += found

    def log_message(self, format: str, *_: object) -> None:
        """Write nothing."""


class _Collector(ThreadingHTTPServer):
    daemon_threads = True
    count: "Synchronized[int]"


def _collect(port: "Synchronized[int]", count: "Synchronized[int]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _Collector(("127.0.0.1", 0), _Handler)
    server.count = count
    port.value = server.server_address[1]
    server.serve_forever()


@contextlib.contextmanager
def collector() -> "Iterator[tuple[int, Synchronized[int]]]":
    """A process that takes log records: its port, and the number that it has got."""
    context = multiprocessing.get_context("spawn")
    port, count = context.Value("l", 0), context.Value("l", 0)
    process = context.Process(target=_collect, args=(port, count), daemon=True)
    process.start()
    try:
        while not port.value:
            if not process.is_alive():
                raise SystemExit("the collector did not start")
            time.sleep(0.05)
        yield port.value, count
    finally:
        process.kill()
        process.join()


# Clients.


class _Client:
    """One run of the client on one CPU, with the nodes of one pool."""

    def __init__(self, number: int, shards: int, kubeconfig: Path, port: int) -> None:
        words = [*CLIENT, "trace", "open", "-A", "--kubeconfig", str(kubeconfig)]
        words += ["--export", f"otlp=http://127.0.0.1:{port}"]
        words += ["--node-selector", f"pool={number}"] if shards > 1 else []
        cpu = sorted(os.sched_getaffinity(0))[number % len(os.sched_getaffinity(0))]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.sched_setaffinity(self.process.pid, {cpu})  # before it has threads
        self.said = ""

    def attached(self) -> None:
        until_attached(self.process)
        self._before = cpu_ns(self.process.pid)

    def end(self) -> dict[str, float]:
        """Stop it, and return what it says of its rows."""
        used, memory = cpu_ns(self.process.pid) - self._before, peak_mb(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        timer = threading.Timer(_END_SECONDS, self.process.kill)
        timer.start()
        assert self.process.stderr is not None
        self.said = self.process.stderr.read().decode()
        self.process.wait()
        timer.cancel()
        delivered, lost = self._last("delivered"), self._last("not delivered")
        events = re.search(r"lost: ([\d,]+)", self.said)
        return {
            "cpu_s": used / 1e9,
            "memory_mb": memory,
            "said_delivered": delivered,
            "said_not_delivered": lost,
            "said_lost": int(events[1].replace(",", "")) if events else 0,
        }

    def _last(self, what: str) -> int:
        """Return the number of rows that the last line with these words has."""
        found = re.findall(rf"([\d,]+) rows? {what}", self.said)
        return int(found[-1].replace(",", "")) if found else 0


def stream(nodes: int, rate: float, seconds: float, shards: int, turn: float | None, is_down: bool) -> dict[str, Any]:
    """Return what came of the events of so many nodes."""
    more = ["--pools", str(shards), *(["--turn", str(turn)] if turn else [])]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        port, count = stack.enter_context(collector())
        if is_down:
            port = 9  # nobody listens there
        with replay(Path(name), nodes, rate, more=more) as (path, _, sent):
            clients = [_Client(number, shards, path, port) for number in range(shards)]
            for client in clients:
                client.attached()
            before, begun = count.value, time.monotonic()
            time.sleep(seconds)
            got, took = count.value - before, time.monotonic() - begun
            ends = [client.end() for client in clients]
        found: dict[str, Any] = {key: sum(end[key] for end in ends) for key in ends[0]}
        found |= {"memory_mb": max(end["memory_mb"] for end in ends), "events_per_s": got / took}
        found |= {"sent": sent[0], "received": count.value, "load": os.getloadavg()[0]}
        return found | {"said": [client.said for client in clients]}


def main() -> None:
    parser = arguments(__doc__, 1)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rates", default="50000,100000,300000", help="events per second of all nodes together")
    parser.add_argument("--seconds", type=float, help="of each run (default: 20, with --down 300)")
    parser.add_argument("--shards", type=int, default=1, help="clients, each with the nodes of a label")
    parser.add_argument("--turn", type=float, help="seconds between two frames of a node")
    parser.add_argument("--events", type=int, default=200_000, help="for the encoders")
    parser.add_argument("--encode", action="store_true", help="only the encoders")
    parser.add_argument("--down", action="store_true", help="nobody listens")
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()
    if options.encode:
        encoded = encoders(options.events, options.rounds)
        rows = [[name, spread(values).text()] for name, values in encoded.items()]
        print_table("OTLP, one core, records from memory", ("", "rows/s of CPU, median (min to max)"), rows)
        write_json(options.json, machine, encoded)
        return
    seconds = options.seconds or (300.0 if options.down else 20.0)
    variants: dict[str, Callable[[], dict[str, Any]]] = {
        f"{float(rate):,.0f}": partial(
            stream, options.nodes, float(rate), seconds, options.shards, options.turn, options.down
        )
        for rate in options.rates.split(",")
    }
    results = alternate(variants, options.rounds)
    what = "nobody listens" if options.down else "OTLP log records"
    print_table(
        f"{what}, {options.nodes:,} nodes, {options.shards} clients of one core each, {seconds:.0f} s, medians",
        ("events/s", "exported/s", "CPU µs/row", "sent", "received", "not delivered", "lost", "MB", "load"),
        [_cells(name, found) for name, found in results.items()],
    )
    write_json(options.json, machine, results)


def _cells(name: str, results: Sequence[dict[str, Any]]) -> list[str]:
    def median(key: str) -> float:
        return float(statistics.median(result[key] for result in results))

    rows = median("said_delivered") + median("said_not_delivered")
    return [
        name,
        f"{median('events_per_s'):,.0f}",
        f"{1e6 * median('cpu_s') / max(rows, 1):.1f}",
        *(f"{median(key):,.0f}" for key in ("sent", "received", "said_not_delivered", "said_lost", "memory_mb")),
        f"{median('load'):.1f}",
    ]


if __name__ == "__main__":
    main()
