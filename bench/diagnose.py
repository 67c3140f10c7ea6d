"""The client's CPU time for `diagnose -A` of a busy cluster: a double of the API server, whose agents replay rows.

    .venv/bin/python -m bench.diagnose [--nodes 100] [--pods 10] [--rounds 3] [--json FILE]
    sudo .venv/bin/python -m bench.diagnose --agent     # the agent's cost on this machine, beside a loop
    sudo .venv/bin/python -m bench.diagnose --start     # Enter to attached on this machine, beside trace open

Each pod connects ten times a second, looks for a file, ends a process, and makes system calls, and one in a hundred is
refused by a server. The double is another process; its CPU time does not count.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.attach import CLIENT, HERE
from bench.overhead import cpu_ns, peak_mb, until_attached
from bench.replay import STDOUT, Replay
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
from bench.start import stopwatch
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.wire.frames import LAST, PART, EventsHeader, FrameType, encode
from tests.fake_cluster import FakeCluster

SECONDS = 30
_TURN = 0.5
_SNAPSHOT_TURNS = 30
_REFUSED, _MISSING = 111, 2
_SOME_SYSCALLS = (0, 1, 3, 9, 35, 202, 232, 257)


class Troubled(Replay):
    """Agents of nodes with busy pods."""

    def __init__(self, nodes: int, pods: int) -> None:
        super().__init__(nodes, 0, _TURN)
        self._pods = pods

    def containers(self, node: str) -> dict[str, Any]:
        """Return pods of this node alone."""
        ids = {number: f"{node}-{number}".encode().hex().ljust(64, "0") for number in range(self._pods)}
        named = [
            {"id": id, "namespace": "shop", "pod": f"{node}-{n}", "pod_uid": f"{node}-{n}", "container": "main"}
            for n, id in ids.items()
        ]
        return {
            "containers": [each | {"kind": "container"} for each in named],
            "cgroups": {str(100 + number): id for number, id in ids.items()},
        }

    async def send(self, websocket: web.WebSocketResponse, counter: list[int], names: Sequence[str]) -> None:
        """Sends the rows of each turn."""
        sequences = dict.fromkeys(range(len(names)), 0)
        for turn in range(1 << 62):
            await asyncio.sleep(self.turn - time.monotonic() % self.turn)
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            frames = b""
            for place, name in enumerate(names):
                gadget = load_gadget(name)
                if gadget.kind == "snapshot" and turn % _SNAPSHOT_TURNS:
                    continue
                writer, count = RowWriter(gadget.record), 0
                for values in self._rows(name, now):
                    writer.add(b"", now - 1_000_000, values)
                    count += 1
                flags = 0 if gadget.kind == "stream" else PART | LAST
                head = EventsHeader(place, sequences[place], now, flags, sequences[place])
                sequences[place] += 1
                frames += encode(FrameType.EVENTS, head.encode() + writer.take())
                counter[0] += count
                self.sent += count
            await websocket.send_bytes(STDOUT + frames)

    def _rows(self, name: str, now: int) -> Iterator[dict[str, Value]]:
        server = bytes((10, 1, 0, 9)).ljust(16, b"\0")
        for number in range(self._pods):
            one: dict[str, Value] = {"cgroup": 100 + number}
            process: dict[str, Value] = {**one, "pid": 1000 + number, "comm": b"server"}
            ends: dict[str, Value] = {**process, "remote": server, "remote_port": 5432, "family": 2}
            match name:
                case "trace_tcp":
                    for each in range(5):
                        is_refused = number == 0 and each == 0
                        yield {**ends, "operation": 1, "errno": _REFUSED if is_refused else 0, "duration": 300_000}
                case "trace_open":
                    yield {**process, "errno": _MISSING, "path": f"/etc/app/{number}.yaml"}
                case "trace_exit":
                    yield {**process, "code": 0}
                case "snapshot_process":
                    yield from ({**process, "pid": 1000 * number + each, "memory": 1 << 24} for each in range(5))
                case "snapshot_socket":
                    yield from ({**ends, "local_port": 8000 + each, "state": 1} for each in range(5))
                case "top_pod":
                    yield {**one, "interval": 500_000_000, "cpu_time": 50_000_000}
                case "top_syscalls":
                    counted = {**one, "interval": 500_000_000, "count": 900, "errors": 3}
                    yield from ({**counted, "syscall": call} for call in _SOME_SYSCALLS)


def measure(nodes: int, pods: int, client: Path = HERE) -> dict[str, float]:
    """One run: the CPU seconds of the client from its start to its end, and its memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        words = [
            sys.executable,
            "-m",
            "bench.diagnose",
            "--serve",
            str(path),
            "--nodes",
            str(nodes),
            "--pods",
            str(pods),
        ]
        with subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, text=True) as double:
            assert double.stdout is not None
            try:
                double.stdout.readline()
                of = {"cwd": client, "env": {**os.environ, "PYTHONPATH": str(client)}}
                deploy = [*CLIENT, "deploy", "--kubeconfig", str(path)]
                if subprocess.run(deploy, stderr=subprocess.DEVNULL, check=False, **of).returncode:  # type: ignore[call-overload]
                    raise NotMeasurableError("the double's agents were not deployed")
                run = [*CLIENT, "diagnose", "-A", "--timeout", f"{SECONDS}s", "-o", "json", "--kubeconfig", str(path)]
                with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **of) as process:  # type: ignore[call-overload]
                    output = process.stdout.read()
                    _, _, usage = os.wait4(process.pid, 0)
                    process.returncode = 0
                if not output:
                    raise NotMeasurableError("this version has no diagnose")
                found = json.loads(output)
            finally:
                double.send_signal(signal.SIGINT)
    looked = found["looked_at"]
    if len(looked["pods"]) != nodes * pods or not looked["events"]:
        raise NotMeasurableError(
            f"{len(looked['pods'])} pods and {looked['events']} events were seen: {found['not_seen']}"
        )
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1024,
        "events": looked["events"],
        "findings": len(found["findings"]),
    }


_SPINS = """
import os, signal, sys, time
calls, began = 0, time.monotonic()
def end(*_):
    print(calls / (time.monotonic() - began))
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    os.getppid()
    calls += 1
"""


def measure_agent(client: Path = HERE) -> dict[str, float]:
    """One run on this machine beside a program that spins: the agent's share of all CPUs in %, its memory in MB, the
    seconds until it was attached, how many events a second were streamed, and how many calls the program made."""
    run = [*CLIENT, "diagnose", "--local", "--host", "--timeout", f"{SECONDS}s", "-o", "json"]
    of = {"cwd": client, "env": {**os.environ, "PYTHONPATH": str(client)}}
    begun = time.monotonic()
    with (
        subprocess.Popen([sys.executable, "-c", _SPINS], stdout=subprocess.PIPE) as spinning,
        subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **of) as process,  # type: ignore[call-overload]
    ):
        try:
            until_attached(process)
            attached = time.monotonic() - begun
            threading.Thread(target=process.stderr.read, daemon=True).start()
            (agent,) = [int(pid) for pid in _children(process.pid)]
            before, since = cpu_ns(agent), time.monotonic_ns()
            time.sleep(SECONDS / 2)
            share = (cpu_ns(agent) - before) * 100 / (time.monotonic_ns() - since) / (os.cpu_count() or 1)
            memory = peak_mb(agent)
            found = json.loads(process.stdout.read())
        finally:
            spinning.terminate()
        assert spinning.stdout
        calls = float(spinning.stdout.read())
    looked = found["looked_at"]
    events = looked["events"] / looked["seconds"]
    return {"agent_%": share, "agent_mb": memory, "attached_s": attached, "events_s": events, "calls_s": calls}


def measure_start(diagnose: Sequence[str], trace_open: Sequence[str]) -> dict[str, float]:
    """One run of each command, right after each other: the seconds from Enter to attached, and how many times those of
    `trace open`, which attaches one gadget, those of `diagnose` are."""
    flags = ("--local", "--host", "-o", "json")
    alone = stopwatch([*trace_open, *flags], {})["attached"]
    attached = stopwatch([*diagnose, *flags], {})["attached"]
    return {"attached_s": attached, "open_s": alone, "ratio": attached / alone}


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


async def _serve(kubeconfig: Path, nodes: int, pods: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
    async with FakeCluster(nodes, serve_exec=Troubled(nodes, pods).serve) as cluster:
        cluster.add_namespace("shop")
        for node in cluster.nodes:
            for number in range(pods):
                cluster.add_pod(f"{node}-{number}", node, "shop", uid=f"{node}-{number}")
        cluster.write_kubeconfig(kubeconfig)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await ended.wait()


def _start(rounds: int, file: Path | None) -> None:
    run = partial(measure_start, [*CLIENT, "diagnose"], [*CLIENT, "trace", "open"])
    run()  # warms up caches
    times, failed = alternate_possible({"diagnose --local": run}, rounds)
    shown = [
        [name, *(spread([one[what] for one in found]).text(2) for what in ("attached_s", "open_s", "ratio"))]
        for name, found in times.items()
    ]
    print_table("Enter to attached", ("", "diagnose, s", "trace open --local, s", "ratio"), shown)
    for name, why in failed.items():
        print(f"{name}: {why}")
    write_json(file, describe_machine(), times)


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=10, help="of each node")
    parser.add_argument("--agent", action="store_true", help="measure the agent on this machine instead")
    parser.add_argument("--start", action="store_true", help="measure Enter to attached on this machine instead")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(options.serve, options.nodes, options.pods))
        return
    print_machine()
    if options.start:
        _start(options.rounds, options.json)
        return
    if options.agent:
        costs, failed = alternate_possible({"a loop that spins": measure_agent}, options.rounds)
        shown = [
            [
                name,
                *(
                    spread([one[what] for one in found]).text(2)
                    for what in ("agent_%", "agent_mb", "attached_s", "events_s", "calls_s")
                ),
            ]
            for name, found in costs.items()
        ]
        titles = ("", "agent, of all CPUs, %", "agent's memory, MB", "Enter to attached, s", "events/s", "calls/s")
        print_table(f"diagnose for {SECONDS} s", titles, shown)
        for name, why in failed.items():
            print(f"{name}: {why}")
        write_json(options.json, describe_machine(), costs)
        return
    name = f"{options.nodes * options.pods:,} pods on {options.nodes} nodes"
    results, failed = alternate_possible({name: partial(measure, options.nodes, options.pods)}, options.rounds)
    rows = [
        [name, *(spread([one[what] for one in found]).text(1) for what in ("cpu_s", "memory_mb", "events"))]
        for name, found in results.items()
    ]
    print_table(f"diagnose for {SECONDS} s", ("", "client's CPU, s", "client's memory, MB", "events"), rows)
    for name, why in failed.items():
        print(f"{name}: {why}")
    write_json(options.json, describe_machine(), results)


if __name__ == "__main__":
    main()
