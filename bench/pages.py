"""What the page of a run costs: a report's time, memory and size, and a browser that shows a live page in a flood.

    .venv/bin/python -m bench.pages [--events 1000000] [--seconds 60] [--rate 10000] [--only report|live] [--json FILE]

Twenty pods start programs, open files, connect and ask for names. Headless Chromium shows the live page; *longest* is
the longest time for which its main thread did not answer, as the browser itself says it, and *longest_cpu* what that
thread computed in one task: the rest is others' work on the same machine. The trap: the rows of the live page are made
before it is opened, since making them takes longer than showing them.
"""

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from bench.rounds import NotMeasurableError, arguments, describe_machine, print_machine, print_table, write_json
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Container, Owners
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.run.coverage import Coverage, NodeCoverage
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from kubectl_gadget.wire.frames import EventsHeader, FrameType

SHARES = {"trace_process": 0.15, "trace_open": 0.5, "trace_tcp": 0.25, "trace_dns": 0.1}
"""of the events"""
_SECOND = 1_000_000_000
_PODS = 20
_NAMES = [f"app-{pod}-7d4b9c6f5-x2x7k" for pod in range(_PODS)]


def _address(pod: int) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(f"10.1.0.{2 + pod % _PODS}")


def _values(gadget: str, second: int, number: int) -> dict[str, Value]:
    pod = number % _PODS
    comm = ("nginx", "python3", "java", "sh")[pod % 4].encode()
    common: dict[str, Value] = {"cgroup": 100 + pod, "pid": 1000 + number % 4000, "comm": comm}
    if gadget == "trace_open":
        name = f"lib/module-{number % 97}" if number % 3 else f"data/{second % 40}-{number % 97}"
        return {**common, "path": f"/srv/app-{pod}/{name}.bin", "errno": 2 * (number % 29 == 0), "fd": 3}
    if gadget == "trace_process":
        job, pid = number // 2, 10_000 + (second * 977 + number // 2) % 20_000
        ids = {"exec_id": (second * _SECOND + job + 1, pid), "parent_exec_id": (1, 1000)}
        found = {**common, "pid": pid, "ppid": 1000, **{name: struct.pack("<QI4x", *one) for name, one in ids.items()}}
        if number % 2:
            return {**found, "operation": b"exit", "code": int(job % 13 == 1)}
        return {**found, "operation": b"exec", "path": "/bin/sh", "args": f"/bin/sh\0-c\0job {job}\0"}
    if gadget == "trace_tcp":
        step, flow = number % 3, number // 3
        ends: dict[str, Value] = {
            "local": _address(flow),
            "local_port": 32768 + (second * 700 + flow) % 28000,
            "remote": _address(flow * 7 + 3),
            "remote_port": 8080 + flow % 3,
            "family": socket.AF_INET,
        }
        return {
            **common,
            **ends,
            "cgroup": 100 + flow % _PODS,
            "operation": (4, 1, 3)[step],
            "initiator": 1,
            "sent": 900 * step,
            "received": 40_000 * step,
            "end": int(step == 2),
        }
    latency = 100_000 * (1 + number % 50)
    return {**common, "name": f"db-{number % 40}.shop.svc", "latency": latency, "rcode": 3 * (number % 17 == 0)}


def payloads(second: int, rate: int, began_ns: int = 0) -> dict[str, bytes]:
    """Return each gadget's events of one second, as ring buffer bytes."""
    found = {}
    for gadget, share in SHARES.items():
        writer, count = RowWriter(load_gadget(gadget).record), round(rate * share)
        for number in range(count):
            writer.add(b"", began_ns + number * (_SECOND // count), _values(gadget, second, number))
        found[gadget] = writer.take()
    return found


# --- the report

_BOOT, _WALL = 1_000 * _SECOND, 1_790_000_000 * _SECOND
_CONTAINERS = {
    "containers": [
        {"id": f"{pod:064x}", "namespace": "shop", "pod": name, "container": "main", "kind": "container"}
        for pod, name in enumerate(_NAMES)
    ],
    "cgroups": {str(100 + pod): f"{pod:064x}" for pod in range(_PODS)},
}


def record(path: Path, seconds: int, rate: int) -> None:
    """Write a recording of so many events a second on one node."""
    loaded = [load_gadget(name) for name in SHARES]
    writer = RecordingWriter(
        path, meta_of(RunOptions(tuple(map(GadgetRun, loaded)), command=("record",), local=True)), print
    )
    clocks = {"boot_ns": _BOOT, "realtime_ns": _WALL}
    said = (
        (FrameType.HELLO, {"protocol": 1, "agent": "1", "node": "node-1", "architecture": "x86_64", **clocks}),
        (FrameType.STARTED, {"gadgets": [{"name": name, "programs": []} for name in SHARES], **clocks}),
        (FrameType.CONTAINERS, _CONTAINERS),
    )
    writer.step(_BOOT, _WALL, [RecordedFrame("node-1", kind, json.dumps(content).encode()) for kind, content in said])
    for second in range(seconds):
        until = (second + 1) * _SECOND
        frames = [
            RecordedFrame("node-1", FrameType.EVENTS, EventsHeader(place, second + 1, _BOOT + until).encode() + payload)
            for place, payload in enumerate(payloads(second, rate, _BOOT + until - _SECOND).values())
        ]
        writer.step(_BOOT + until, _WALL + until, frames)
        while writer._waiting_bytes > 16 << 20:
            time.sleep(0.001)
    ended = _WALL + seconds * _SECOND
    node = NodeCoverage(name="node-1", attached_ns=_WALL, until_ns=ended)
    covered = Coverage(began_ns=_WALL, complete_ns=_WALL, ended_ns=ended, nodes=(node,), gadgets=tuple(SHARES))
    if not writer.close({"seconds": seconds}, covered.to_json()):
        raise NotMeasurableError("the recording is not complete")


def report(recording: Path) -> dict[str, float]:
    """Return what `kubectl gadget report` takes, in a process of its own."""
    page = recording.with_suffix(".html")
    words = [sys.executable, "-m", "kubectl_gadget.cli.main", "report", str(recording), "-o", str(page)]
    began = time.monotonic()
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NotMeasurableError(said)
    return {
        "seconds": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss / 1024,
        "file_mb": page.stat().st_size / 1e6,
    }


def reported(seconds: int, rate: int) -> dict[str, float]:
    """The same for a recording that is made for it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run.kgr"
        record(path, seconds, rate)
        return report(path)


# --- the live page

_DISTINCT = 20
"""seconds of rows, which then come again"""
_TICKS = 20
"""a second, in which rows come"""
_WATCH = """(() => {
window.tasks = []; window.frames_ = [];
new PerformanceObserver(list => tasks.push(...list.getEntries().map(one => one.duration))).observe({type: "longtask"});
let last = 0;
const frame = now => { if (last) frames_.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
})()"""


def _ticks(rate: int) -> list[list[Batch]]:
    """Return the rows of each tick, whose times are since its second began."""
    owners = [Container("container", "shop", name, "main") for name in _NAMES]
    ticks: list[list[Batch]] = [[] for _ in range(_DISTINCT * _TICKS)]
    for second in range(_DISTINCT):
        for gadget, payload in payloads(second, rate).items():
            rows = decode(load_gadget(gadget), "node-1", payload)
            rows.name_owners(lambda cgroups: Owners(np.asarray(cgroups, np.intp) - 100, owners))
            for part, places in enumerate(np.array_split(np.arange(len(rows)), _TICKS)):
                ticks[second * _TICKS + part].append(rows.select(places))
    return ticks


def live(seconds: int, rate: int, part: str = "") -> dict[str, float]:
    """Return how well Chromium shows a live page while rows come; `part` is scrolled to."""
    from kubectl_gadget.page.live import LiveRun
    from tests.flows.browser import CHROMIUM, empty_page
    from tests.flows.serving import served

    if CHROMIUM is None:
        raise NotMeasurableError("chromium is not installed")
    ticks, stop = _ticks(rate), threading.Event()
    options = RunOptions(tuple(GadgetRun(load_gadget(name)) for name in SHARES), local=True)
    run = LiveRun(options, Replay((Path("none"),)), Progress(StringIO()))

    def feed() -> None:
        began = time.monotonic()
        for number in itertools.count():
            if stop.wait(max(0.0, began + number / _TICKS - time.monotonic())):
                return
            second = time.time_ns() - (number % _TICKS) * (_SECOND // _TICKS)
            parts = []
            for batch in ticks[number % len(ticks)]:
                parts.append(batch.select(np.arange(len(batch))))
                parts[-1].clock_offset_ns = second
            run.write(Rows(parts))

    feeder = threading.Thread(target=feed)
    with served(run) as url, empty_page() as tab:
        traced = _Traced()
        tab.on("Tracing.dataCollected", traced.take)
        tab.on("Tracing.tracingComplete", traced.end)
        tab.ask("Page.enable")
        tab.ask("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        tab.ask("Performance.enable")
        feeder.start()
        try:
            tab.open(url, "light")
            if part:
                tab.wait(f"document.getElementById({part!r})")
                tab.script(f"document.getElementById({part!r}).scrollIntoView()")
            heaps = [_heap(tab)]
            tab.ask("Tracing.start", categories="toplevel")
            for _ in range(seconds // 5):
                time.sleep(5)
                heaps.append(_heap(tab))
            tasks, frames = (np.array(tab.script(name) or [0.0]) for name in ("tasks", "frames_"))
            tab.ask("Tracing.end")
            while not traced.is_over:
                tab.script("1")
        finally:
            stop.set()
            feeder.join()
    return {
        "longest_ms": float(tasks.max()),
        "long": float((tasks > 100).sum()),
        "longest_cpu_ms": traced.longest_ms,
        "frame_ms": float(frames.max()),
        "frames_over": float((frames > 100).sum()),
        "frames": len(frames),
        "heap_mb": heaps[-1],
        "most_heap_mb": max(heaps),
        "heap_grows_mb": float(np.mean(heaps[-3:]) - np.mean(heaps[len(heaps) // 3 : len(heaps) // 3 + 3])),
    }


class _Traced:
    """The tasks of the page's main thread, from the browser's trace."""

    def __init__(self) -> None:
        self.is_over = False
        self._threads: set[tuple[int, int]] = set()
        self._longest: dict[tuple[int, int], float] = {}

    def take(self, found: Mapping[str, Any]) -> None:
        for event in found["value"]:
            thread = event["pid"], event["tid"]
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain":
                self._threads.add(thread)
            self._longest[thread] = max(self._longest.get(thread, 0.0), event.get("tdur", 0) / 1000)

    def end(self, found: Mapping[str, Any]) -> None:
        self.is_over = True

    @property
    def longest_ms(self) -> float:
        """Return the most CPU time of a task."""
        return max((self._longest[thread] for thread in self._threads & self._longest.keys()), default=0.0)


def _heap(tab: Any) -> float:
    metrics = {one["name"]: one["value"] for one in tab.ask("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"]) / 1e6


def main() -> None:
    parser = arguments(__doc__, 1)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the large report (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=int, default=60, help="that the live page is looked at (default: %(default)s)"
    )
    parser.add_argument("--rate", type=int, default=10_000, help="events a second of it (default: %(default)s)")
    parser.add_argument("--only", choices=("report", "live"))
    options = parser.parse_args()
    print_machine()
    results: dict[str, list[dict[str, float]]] = {}
    runs: dict[str, Any] = {}
    if options.only != "live":
        runs[f"report of {options.events:,} events"] = partial(reported, options.events // 10_000, 10_000)
        runs["report of ten minutes, 200 events/s"] = partial(reported, 600, 200)
    if options.only != "report":
        for part in ("", "processes", "map", "files"):
            name = f"live page, {options.rate:,} events/s{f', at its {part}' if part else ''}"
            runs[name] = partial(live, options.seconds, options.rate, part)
    for name, run in runs.items():
        results[name] = [run() for _ in range(options.rounds)]
        found = results[name][-1]
        _show(name, results[name], list(found))
    if options.json:
        write_json(options.json, describe_machine(), results)


def _show(name: str, rounds: Sequence[Mapping[str, float]], columns: Sequence[str]) -> None:
    print_table(name, columns, [[f"{found[column]:,.1f}" for column in columns] for found in rounds])


if __name__ == "__main__":
    main()
