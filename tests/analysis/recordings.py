"""Recordings for tests: of runs in this kernel, and made of records."""

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.replay import CONTAINERS, Opens
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.writer import RecordedFrame, RecordingWriter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import EventsHeader, FrameType
from tests.gadget_run import GADGET
from tests.recording.test_equality_here import LOAD

BOOT_NS, WALL_NS = 1_000_000_000_000, 1_790_000_000_000_000_000
SECOND = 1_000_000_000


def recorded(path: Path, *words: str, seconds: int = 2) -> list[dict[str, object]]:
    """Records a run on this machine beside some load. Returns its rows."""
    run = [*GADGET, *words, "--local", "--host", "--record", str(path), "-o", "json"]
    if words[0] != "snapshot":
        run += ["--timeout", f"{seconds}s"]
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        live = subprocess.run(run, check=False, capture_output=True, timeout=120)
        load.terminate()
    assert live.returncode == 0, live.stderr.decode()
    return [json.loads(line) for line in live.stdout.splitlines()]


def opens(path: Path, events: int, nodes: int = 2, per_frame: int = 2000, seconds_apart: float = 0.2) -> None:
    """A recording of so many opens in 60 containers."""
    gadget = load_gadget("trace_open")
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(gadget),))), print)
    records, clocks = Opens(gadget, per_frame), {"boot_ns": BOOT_NS, "realtime_ns": WALL_NS}
    first = []
    for number in range(nodes):
        name = f"node-{number}"
        hello = {"protocol": 1, "agent": "1", "node": name, "architecture": "x86_64", **clocks}
        started = {"gadgets": [{"name": "trace_open", "programs": []}], **clocks}
        for kind, content in (
            (FrameType.HELLO, hello),
            (FrameType.STARTED, started),
            (FrameType.CONTAINERS, CONTAINERS),
        ):
            first.append(RecordedFrame(name, kind, json.dumps(content).encode()))
    writer.step(BOOT_NS, WALL_NS, first)
    apart, step = int(seconds_apart * SECOND), 0
    while step * per_frame < events:
        began, step = BOOT_NS + step * apart, step + 1
        payload = EventsHeader(0, step, began + apart).encode() + records.at(began, began + apart - 1)
        frame = RecordedFrame(f"node-{step % nodes}", FrameType.EVENTS, payload)
        while writer._waiting_bytes > 30 << 20:
            time.sleep(0.01)  # it would drop what a slow disk has not taken
        writer.step(began + apart, WALL_NS + began + apart - BOOT_NS, [frame])
    assert writer.close({"seconds": step * seconds_apart})
