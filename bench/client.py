"""How fast the client is on one core: decode, join, filter, count; rows as text; and a merge of 1,000 nodes.

Run it alone: `python bench/client.py [EVENTS]`. It prints events per second and the goals of docs/design.md.
"""

import io
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kubectl_gadget.events.batch import decode
from kubectl_gadget.events.filter import compile_filter
from kubectl_gadget.events.identity import ContainerFilter, Identity
from kubectl_gadget.events.merge import TimeMerge
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.output.formats import make_sink
from kubectl_gadget.output.options import OutputOptions
from tests.events.records import OPEN, record, ring

FILTER = 'comm == "nginx" && fd > 2 || path.startsWith("/etc/ssl")'
PER_BATCH = 20_000


def batches(events: int) -> list[bytes]:
    """Ring buffer bytes of that many opens, from 60 containers, with paths of usual lengths."""
    comms = (b"nginx", b"python3", b"sh", b"java", b"node")
    paths = [
        b"/etc/ssl/certs/ca-certificates.crt",
        b"/usr/lib/python3/dist-packages/yaml/__init__.py",
        b"/proc/self/status",
        b"/var/log/nginx/access.log",
        b"/lib/x86_64-linux-gnu/libc.so.6",
    ]
    found = []
    for first in range(0, events, PER_BATCH):
        records = [
            record(
                timestamp=number * 1000,
                cgroup=100 + number % 60,
                pid=number % 30000,
                comm=comms[number % 5],
                path=paths[number % 7 % 5] + (b"" if number % 3 else b".%d" % number),
                fd=3 + number % 20,
                flags=0o2000000,
            )
            for number in range(first, min(first + PER_BATCH, events))
        ]
        found.append(struct.pack("<HHIQQ", 0, 0, 0, 0, 0) + ring(*records))
    return found


def measure(name: str, goal: int, events: int, run: Callable[[], int]) -> None:
    """Prints the best of three runs."""
    best = 0.0
    for _ in range(3):
        begun = time.process_time()
        result = run()
        best = max(best, events / (time.process_time() - begun))
    sys.stdout.write(f"{name:32} {best:12,.0f} /s   goal {goal:>9,}   result {result:,}\n")


def main(events: int) -> None:
    """Measures on made-up batches that are in memory."""
    data = batches(events)
    identity = Identity("node-1")
    containers = [
        {"id": f"{n:064x}", "namespace": f"ns-{n % 5}", "pod": f"pod-{n}", "container": "main", "kind": "container"}
        for n in range(60)
    ]
    identity.apply({"containers": containers, "cgroups": {str(100 + n): f"{n:064x}" for n in range(60)}}, 0.0)
    wanted = ContainerFilter(namespaces=frozenset(f"ns-{n}" for n in range(4)))
    expression = compile_filter(FILTER, [OPEN])

    def count() -> int:
        total = 0
        for payload in data:
            batch = decode(OPEN, "node-1", memoryview(payload)[24:])
            batch.owners = identity.lookup(batch.cgroups())
            total += len(expression.select(batch.select(batch.owners.judged(wanted.wanted) > 0)))
        return total

    def write(format: str) -> Callable[[], int]:
        def run() -> int:
            stream = io.StringIO()
            sink = make_sink(OutputOptions(format=format), [OPEN], stream)
            for payload in data:
                batch = decode(OPEN, "node-1", memoryview(payload)[24:])
                batch.owners = identity.lookup(batch.cgroups())
                sink.write(Rows([batch]))
            sink.close()
            return len(stream.getvalue())

        return run

    measure("decode, join, filter, count", 1_000_000, events, count)
    measure("JSON lines", 150_000, events, write("json"))
    measure("table", 150_000, events, write("table"))
    measure("wide table", 150_000, events, write("wide"))


def merge_nodes(nodes: int, rounds: int) -> None:
    """That many nodes at once, 100 rows per node every 50 ms, merged and printed as JSON; with memory and order."""
    merge = TimeMerge(200_000_000)
    identities = [Identity(f"node-{number}") for number in range(nodes)]
    container = {"id": "c", "namespace": "default", "pod": "web", "container": "main", "kind": "container"}
    for number, identity in enumerate(identities):
        identity.apply({"containers": [container], "cgroups": {str(n): "c" for n in range(30)}}, 0.0)
        merge.join(number)
    printed = make_sink(OutputOptions(format="json"), [OPEN], Discard())
    begun, total, last, ordered = time.process_time(), 0, -1, True
    for round in range(rounds):
        now = round * 50_000_000
        payload = ring(*(record(timestamp=now + n * 500_000, cgroup=n % 30) for n in range(100)))
        for number, identity in enumerate(identities):
            batch = decode(OPEN, identity.node, payload)
            batch.clock_offset_ns = number
            batch.owners = identity.lookup(batch.cgroups())
            merge.add(batch, now)
            merge.complete(number, now + 40_000_000)
        rows = merge.release(now)
        times = rows.collect(lambda part: part.wall_ns().tolist())
        ordered = ordered and times == sorted(times) and (not times or times[0] >= last)
        last = times[-1] if times else last
        printed.write(rows)
        total += len(rows)
    seconds = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{f'{nodes:,} nodes, merged, as JSON':32} {total / seconds:12,.0f} /s   in order: {ordered}, "
        f"late: {merge.late}, memory of all this: {memory:.0f} MB   goal 300 MB\n"
    )


class Discard(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


if __name__ == "__main__":
    merge_nodes(1000, 8)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
