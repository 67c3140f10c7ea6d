"""How long a client takes to attach to a thousand nodes with resident agents, of a double of the API server.

    .venv/bin/python -m bench.attach [--nodes 1000,5000] [--rate 20000] [--reference FOLDER] [--rounds 3] [--json FILE]

FOLDER has the `kubectl_gadget` of another version, with its built files; it runs in turns with this one. The double
shares the CPUs with the client, so its CPU time is shown apart; and other work on the machine changes the times far
more than the CPU times.
"""

import compileall
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.overhead import cpu_ns, peak_mb, until_attached
from bench.rounds import (
    NotMeasurableError,
    alternate_possible,
    arguments,
    describe_machine,
    print_machine,
    print_table,
    spread,
    write_json,
)

HERE = Path(__file__).parents[1]
CLIENT = [sys.executable, "-m", "kubectl_gadget.cli.main"]


@contextmanager
def replay(
    directory: Path, nodes: int, rate: float, client: Path = HERE, more: Sequence[str] = ()
) -> Iterator[tuple[Path, int, list[int]]]:
    """A fake cluster with resident agents of the version in `client`: its kubeconfig, its PID, and at the end the
    number of events sent. `more`: flags of bench.replay."""
    path, sent = directory / "kubeconfig", list[int]()
    words = [sys.executable, "-m", "bench.replay", str(path), "--nodes", str(nodes), "--rate", str(rate), *more]
    with subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, text=True) as double:
        assert double.stdout is not None
        try:
            double.stdout.readline()
            with _started([*CLIENT, "deploy", "--kubeconfig", str(path)], client, subprocess.DEVNULL) as deploy:
                if deploy.wait():
                    raise NotMeasurableError("the double's agents were not deployed")
            yield path, double.pid, sent
        finally:
            double.send_signal(signal.SIGINT)
            sent.append(int((double.stdout.read().split() or ["0"])[-1]))


def attach(client: Path, nodes: int, rate: float, limit: float) -> dict[str, float]:
    """One run until all nodes are attached. Raises NotMeasurableError if that takes more than `limit` seconds."""
    # As pip does: otherwise each client would compile all modules, where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(str(client / "kubectl_gadget"), quiet=2)
    with tempfile.TemporaryDirectory() as folder, replay(Path(folder), nodes, rate, client) as (path, double, _):
        words = [*CLIENT, "trace", "open", "-A", "-o", "json", "--kubeconfig", str(path)]
        before, began = cpu_ns(double), time.monotonic()
        with _started(words, client, subprocess.PIPE) as process:
            timer = threading.Timer(limit, process.kill)
            timer.start()
            try:
                until_attached(process)
            except NotMeasurableError:
                if timer.is_alive():
                    raise
                raise NotMeasurableError(f"not all nodes were attached after {limit:.0f} s") from None
            finally:
                timer.cancel()
            found = {
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
    results, failed = alternate_possible(variants, options.rounds)
    rows = []
    for name, found in results.items():
        nodes = int(name.partition(" ")[0])
        rows.append(
            [
                name,
                spread([one["seconds"] for one in found]).text(1),
                spread([one["client_s"] / nodes for one in found]).text(1, 1e3),
                spread([one["double_s"] / nodes for one in found]).text(1, 1e3),
                f"{statistics.median(one['memory_mb'] for one in found):.0f}",
            ]
        )
    headers = ("", "attached after s", "client's CPU, ms per node", "double's", "client's memory, MB")
    print_table(f"Resident agents, {options.rate:,.0f} events/s of all nodes together", headers, rows)
    for name, why in failed.items():
        print(f"{name}: {why}")
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
