"""How long a client takes to attach to a thousand nodes with resident agents, of a double of the API server.

    .venv/bin/python -m bench.attach [--nodes 1000,5000] [--rate 20000] [--reference FOLDER] [--rounds 3] [--json FILE]

FOLDER has the `kubectl_gadget` of another version, with its built files; it runs in turns with this one. The traps: the
double shares the CPUs with the client, so its CPU time is shown apart; and other work on the machine changes the times
far more than the CPU times.
"""

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.overhead import cpu_ns, peak_mb
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json

HERE = Path(__file__).parents[1]
CLIENT = [sys.executable, "-m", "kubectl_gadget.cli.main"]


def attach(client: Path, nodes: int, rate: float, limit: float) -> dict[str, float]:
    """One run until all nodes are attached, or until `limit` seconds, which are then the result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        words = [sys.executable, "-m", "bench.replay", str(path), "--nodes", str(nodes), "--rate", str(rate)]
        with subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE) as double:
            assert double.stdout is not None
            try:
                double.stdout.readline()
                flags = ["--kubeconfig", str(path)]
                with _started([*CLIENT, "deploy", *flags], client, subprocess.DEVNULL) as deploy:
                    if deploy.wait():
                        raise SystemExit("the double's agents were not deployed")
                return _measure([*CLIENT, "trace", "open", "-A", "-o", "json", *flags], client, double.pid, limit)
            finally:
                double.kill()


def _measure(words: list[str], client: Path, double: int, limit: float) -> dict[str, float]:
    before, began = cpu_ns(double), time.monotonic()
    with _started(words, client, subprocess.PIPE) as process:
        assert process.stderr is not None
        attached, left = False, limit
        while not attached and left > 0 and select.select([process.stderr], [], [], left)[0]:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"{' '.join(words)} ended")
            attached, left = line.startswith(b"tracing"), began + limit - time.monotonic()
        found = {
            "attached": float(attached),
            "seconds": time.monotonic() - began,
            "client_s": cpu_ns(process.pid) / 1e9,
            "double_s": (cpu_ns(double) - before) / 1e9,
            "memory_mb": peak_mb(process.pid),
        }
        process.kill()
    return found


def _started(words: list[str], client: Path, errors: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(client)}
    return subprocess.Popen(words, cwd=client, env=environment, stdout=subprocess.DEVNULL, stderr=errors)


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--nodes", default="1000,5000")
    parser.add_argument("--rate", type=float, default=20_000, help="events per second of all nodes together")
    parser.add_argument("--reference", type=Path, metavar="FOLDER", help="of another version's kubectl_gadget")
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a run is given up")
    options = parser.parse_args()
    print_machine()
    machine = describe_machine()
    clients = {"this version": HERE} | ({"reference": options.reference} if options.reference else {})
    variants: dict[str, Callable[[], dict[str, float]]] = {
        f"{nodes} nodes, {name}": partial(attach, folder, int(nodes), options.rate, options.limit)
        for nodes in options.nodes.split(",")
        for name, folder in clients.items()
    }
    results = alternate(variants, options.rounds)
    rows = []
    for name, found in results.items():
        nodes = int(name.partition(" ")[0])
        failed = sum(not one["attached"] for one in found)
        rows.append(
            [
                name,
                spread([one["seconds"] for one in found]).text(1) + (f", {failed} not attached" if failed else ""),
                spread([one["client_s"] / nodes for one in found]).text(1, 1e3),
                spread([one["double_s"] / nodes for one in found]).text(1, 1e3),
                f"{statistics.median(one['memory_mb'] for one in found):.0f}",
            ]
        )
    headers = ("", "attached after s", "client's CPU, ms per node", "double's", "client's memory, MB")
    print_table(f"Resident agents, {options.rate:,.0f} events/s of all nodes together", headers, rows)
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
