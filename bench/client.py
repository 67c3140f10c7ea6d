"""How fast the client is: each sink on one core, streams of 1 to 1,000 nodes from a double of the API server, latency.

    .venv/bin/python -m bench.client [--rounds 3] [--events 200000] [--nodes 1,10,100,1000] [--seconds 5] [--json FILE]
    .venv/bin/python -m bench.client --reference FOLDER     only the sinks, and those of another version, in turns

As root it also measures the latency of real events of this machine. The double takes CPU time as well, so on a machine
with few cores, look at the CPU time per event, not at the throughput.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

from bench.attach import CLIENT, replay
from bench.overhead import cpu_ns, peak_mb, until_attached
from bench.replay import CONTAINERS, Opens
from bench.rounds import Discard, alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import ContainerFilter, Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.client_messages import FilterSpec

FILTER = 'comm == "nginx" && fd > 2 || path.startsWith("/etc/ssl")'
SINKS = (
    "json",
    "csv",
    "yaml",
    "table",
    "wide",
    "name",
    "jsonpath={.pod} {.path}",
    "custom-columns=POD:.pod,PATH:.path",
)
PER_BATCH = 20_000
_CATCH_UP_SECONDS = 60.0
"""Maximum seconds in which a client may print what it has received before it must stop; the rest counts as lost."""
_ONE_IN = 97
"""The latency of one in this many rows is measured."""


def sinks(events: int, rounds: int) -> dict[str, list[float]]:
    """Events per second of CPU time, by sink."""
    gadget = load_gadget("trace_open")
    payload = Opens(gadget, PER_BATCH).at(0, 10**9)
    identity = Identity("node-1")
    identity.apply(ContainerChanges.from_json(CONTAINERS), 0.0)
    wanted = ContainerFilter(FilterSpec(namespaces=tuple(f"ns-{number}" for number in range(4)))).wanted
    expression = compile_filter(FILTER, [gadget])

    def batches() -> Iterator[Batch]:
        for _ in range(max(1, events // PER_BATCH)):
            batch = decode(gadget, "node-1", memoryview(payload))
            batch.name_owners(identity.lookup)
            yield batch

    def count() -> float:
        begun, total = time.process_time(), 0
        for batch in batches():
            total += len(expression.select(batch.select(batch.judged(lambda _node: wanted) > 0)))
        assert total
        return events / (time.process_time() - begun)

    def write(format: str) -> float:
        sink, total, begun = make_sink(OutputOptions(format=format), [gadget], Discard()), 0, time.process_time()
        for batch in batches():
            sink.write(Rows([batch]))
            total += len(batch)
        sink.close()
        return total / (time.process_time() - begun)

    def export() -> float:
        from kubectl_gadget.export.otlp import LogRecords  # needs packages that are not everywhere
        from kubectl_gadget.export.sending import ROWS_AT_ONCE

        encoder, total, begun = LogRecords([gadget], {}), 0, time.process_time()
        for batch in batches():
            for rows in Rows([batch]).chunks(ROWS_AT_ONCE):
                encoder.encode(rows)
            total += len(batch)
        return total / (time.process_time() - begun)

    runs: dict[str, Callable[[], float]] = {"decode, name, filter, count": count, "--export otlp, encoding": export}
    return alternate(runs | {f"-o {format}": partial(write, format) for format in SINKS}, rounds)


def sinks_of(folder: Path, events: int) -> dict[str, float]:
    """The same, once, by the version in this folder, in a process of its own."""
    code = "import json, sys; from bench.client import sinks; print(json.dumps(sinks(int(sys.argv[1]), 1)))"
    words = [sys.executable, "-c", code, str(events)]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    made = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    return {name: values[0] for name, values in json.loads(made).items()}


def compare(reference: Path, events: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Prints the sinks of this version beside those of another one."""
    folders = {"reference": reference, "now": Path(__file__).resolve().parent.parent}
    results = alternate({name: partial(sinks_of, folder, events) for name, folder in folders.items()}, rounds)
    rows = []
    for sink in results["now"][0]:
        before, now = ([found[sink] for found in results[name]] for name in folders)
        ratios = [later / earlier for earlier, later in zip(before, now, strict=True)]
        rows.append([sink, spread(before).text(), spread(now).text(), spread(ratios).text(2)])
    print_table("One core, events/s of CPU", ("", *folders, "ratio"), rows)
    return results


class Reader(threading.Thread):
    """Counts the rows that a client prints, and measures the latency of some."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="rows of the client")
        self._stream = stream
        self.rows = 0
        self.latencies_ms: list[float] = []

    def run(self) -> None:
        rest = b""
        while piece := os.read(self._stream.fileno(), 1 << 20):
            now = time.time_ns()
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines[-self.rows % _ONE_IN :: _ONE_IN]:
                self.latencies_ms.append((now - _nanoseconds(json.loads(line)["timestamp"])) / 1e6)
            self.rows += len(lines)


def _nanoseconds(text: str) -> int:
    whole, _, part = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(part.ljust(9, "0"))


def run_client(flags: Sequence[str], seconds: float, during: Callable[[], object]) -> dict[str, float]:
    """The cost of one run of the client, from its first message to its end."""
    begun = time.monotonic()
    words = [*CLIENT, "trace", "open", "-o", "json", *flags]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reader = Reader(process.stdout)
        reader.start()
        said = until_attached(process)
        attached, started_cpu = time.monotonic() - begun, cpu_ns(process.pid)
        deadline = time.monotonic() + seconds
        during()
        time.sleep(max(0.0, deadline - time.monotonic()))
        used, memory = cpu_ns(process.pid) - started_cpu, peak_mb(process.pid)
        rows, took = reader.rows, time.monotonic() - begun - attached
        process.send_signal(signal.SIGINT)
        timer = threading.Timer(_CATCH_UP_SECONDS, process.kill)
        timer.start()
        errors = process.stderr.read().decode()
        timer.cancel()
        reader.join()
    if not reader.latencies_ms:
        raise SystemExit(f"{' '.join(words)} printed nothing:\n{said}{errors}")
    lost = re.search(r"lost: ([\d,]+)", errors)
    latencies = sorted(reader.latencies_ms)
    return {
        "attached_s": attached,
        "rows_per_s": rows / took,
        "cpu_ns_per_row": used / max(rows, 1),
        "memory_mb": memory,
        "latency_p50_ms": statistics.median(latencies),
        "latency_p99_ms": latencies[int(len(latencies) * 0.99)],
        "rows": reader.rows,
        "lost": int(lost[1].replace(",", "")) if lost else 0,
    }


def streams(nodes: int, rate: float, seconds: float) -> dict[str, float]:
    """One run with this many nodes. Events that were sent but not printed also count as lost."""
    with tempfile.TemporaryDirectory() as name:
        with replay(Path(name), nodes, rate) as (path, _, sent):
            result = run_client(["-A", "--kubeconfig", str(path)], seconds, lambda: None)
        return result | {"sent": sent[0], "lost": result["lost"] + sent[0] - result["rows"]}


def here(seconds: float) -> dict[str, float]:
    """Latency of real events of this machine, at 500 per second."""
    with tempfile.NamedTemporaryFile() as file:

        def opens() -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                os.close(os.open(file.name, os.O_RDONLY))
                time.sleep(0.002)

        return run_client(["--local", "--host", "--path", file.name], seconds, opens)


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--nodes", default="1,10,100,1000")
    parser.add_argument("--rate", type=float, default=20_000, help="events per second of all nodes together")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--reference", type=Path, metavar="FOLDER", help="a built worktree of another version")
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()
    if options.reference is not None:
        write_json(options.json, machine, compare(options.reference.resolve(), options.events, options.rounds))
        return
    by_sink = sinks(options.events, options.rounds)
    rows = [[name, spread(values).text()] for name, values in by_sink.items()]
    print_table("One core, records from memory", ("", "events/s of CPU, median (min to max)"), rows)
    variants: dict[str, Callable[[], dict[str, float]]] = {
        f"{nodes} nodes": partial(streams, int(nodes), options.rate, options.seconds)
        for nodes in options.nodes.split(",")
    }
    if os.geteuid() == 0:
        variants["this machine, 500 events/s"] = partial(here, options.seconds)
    by_nodes = alternate(variants, options.rounds)
    print_table(
        f"JSON lines of {options.rate:,.0f} events/s of all nodes together, medians",
        ("", "attached s", "rows/s", "CPU ns/row", "lost", "MB", "event to row ms: p50", "p99 (min to max)"),
        [_cells(name, results) for name, results in by_nodes.items()],
    )
    write_json(options.json, machine, {"sinks": by_sink, "streams": by_nodes})


def _cells(name: str, results: Sequence[dict[str, float]]) -> list[str]:
    def of(key: str) -> list[float]:
        return [result[key] for result in results]

    return [
        name,
        spread(of("attached_s")).text(2),
        f"{statistics.median(of('rows_per_s')):,.0f}",
        f"{statistics.median(of('cpu_ns_per_row')):,.0f}",
        f"{max(of('lost')):.0f}",
        f"{max(of('memory_mb')):.0f}",
        f"{statistics.median(of('latency_p50_ms')):.0f}",
        spread(of("latency_p99_ms")).text(),
    ]


if __name__ == "__main__":
    main()
