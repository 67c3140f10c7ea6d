"""Half an hour of `--record` at a steady load: does the client's memory stay as it is?

    .venv/bin/python -m bench.recording_soak [--seconds 1800] [--rate 10000] [--nodes 5] [--json FILE]

Opens come from a double of the API server (bench/replay.py), are printed as JSON, and recorded to a file. Memory grows
in steps at the beginning, until buffers have the size that they need; so each fifth of the time counts.
"""

import argparse
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bench.attach import CLIENT, replay
from bench.overhead import cpu_ns
from bench.rounds import describe_machine, end_with_children, print_machine, print_table, write_json
from bench.soak import memory_of

_STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--rate", type=float, default=10_000, help="events per second of all nodes together")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every measurement")
    options = parser.parse_args()
    end_with_children()
    print_machine()
    machine, samples = describe_machine(), list[dict[str, float]]()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "run.kgr"
        with replay(Path(folder), options.nodes, options.rate) as (kubeconfig, _, sent):
            words = ["trace", "open", "-A", "-o", "json", "--kubeconfig", str(kubeconfig), "--record", str(path)]
            with subprocess.Popen([*CLIENT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
                try:
                    for step in range(_STEPS + 1):
                        time.sleep(options.seconds / _STEPS if step else 10)
                        sample = {"minute": step * options.seconds / _STEPS / 60}
                        sample |= {"client_mb": memory_of(client.pid) / (1 << 20), "cpu_s": cpu_ns(client.pid) / 1e9}
                        samples.append(sample | {"file_mb": path.stat().st_size / (1 << 20)})
                finally:
                    client.send_signal(signal.SIGINT)
                    assert client.stderr is not None
                    said = client.stderr.read().decode().splitlines()[-1:]
    rows = [[f"{value:,.0f}" for value in sample.values()] for sample in samples]
    print_table(f"Recording {options.rate:,.0f} events/s", ("minute", "client MB", "CPU s", "recording MB"), rows)
    print(f"{sent[0]:,} events sent; {' '.join(said)}")
    write_json(options.json, machine, samples)


if __name__ == "__main__":
    main()
