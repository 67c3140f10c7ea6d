"""A recording of a small shop, made by hand, whose numbers are known; and batches of rows."""

import json
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Container, Owners
from kubectl_gadget.rows.views import RowWriter
from kubectl_gadget.run.coverage import Coverage, MissingSpan, NodeCoverage
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import EventsHeader, FrameType

BOOT, WALL = 1_000_000_000_000, 1_790_000_000_000_000_000
SECOND = 1_000_000_000
SECONDS = 20
HOSTILE = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>\x1b[31m\u202e"
"""What a container may call its things"""
GADGETS = ("trace_tcp", "trace_open", "trace_process")
_CONTAINERS = (("shop", "cart-7d4b9c6f5-x2x7k", "app"), ("shop", "db-0", "postgres"))
CONNECT, _ACCEPT, _CLOSE, THIS, _OTHER = 1, 2, 3, 1, 2
_CART, _DB = "10.1.0.2", "10.1.0.3"


def process(operation: str, pid: int, ppid: int, second: float, *args: str, **more: Any) -> dict[str, Any]:
    """A record of trace process."""
    started, number = more.pop("started", int(second * SECOND)), struct.Struct("<QI4x")
    return {
        "timestamp": second,
        "operation": operation.encode(),
        "pid": pid,
        "ppid": ppid,
        "comm": args[0].rpartition("/")[2].encode() if args else b"sh",
        "args": "".join(f"{arg}\0" for arg in args) if args else None,
        "path": args[0] if args else None,
        "exec_id": number.pack(started + pid, pid),
        "parent_exec_id": number.pack(ppid, ppid),
        **more,
    }


def opened(pid: int, second: float, path: str, errno: int = 0, flags: int = 0) -> dict[str, Any]:
    """A record of trace open."""
    return {"timestamp": second, "pid": pid, "comm": b"cart", "path": path, "errno": errno, "fd": 3, "flags": flags}


def _address(text: str) -> bytes:
    """IPv4 within IPv6, as gadgets have it."""
    return bytes(10) + b"\xff\xff" + socket.inet_aton(text)


def tcp(operation: int, second: float, ends: Sequence[tuple[str, int]], **more: Any) -> dict[str, Any]:
    (local, port), (remote, other) = ends
    return {
        "timestamp": second,
        "operation": operation,
        "local": _address(local),
        "local_port": port,
        "remote": _address(remote),
        "remote_port": other,
        "family": socket.AF_INET,
        **more,
    }


def shop() -> dict[str, list[dict[str, Any]]]:
    """The records: a cart that starts a shell, opens files, and talks to its database; a hostile program."""
    client, server = (_CART, 40000), (_DB, 5432)
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in GADGETS}
    made["trace_process"] = [
        process("exec", 10, 1, 1, "/bin/cart", "--listen", container_pid=1),
        process("fork", 11, 10, 2),
        process("exec", 11, 10, 2.1, "/bin/sh", "-c", "exit 3"),
        process("exit", 11, 10, 3, code=3),
        process("exec", 12, 10, 4, HOSTILE),
        process("exit", 10, 1, 19, signal=9, container_pid=1),
    ]
    made["trace_open"] = [opened(10, 5 + number / 10, f"/data/{number % 4}") for number in range(40)]
    made["trace_open"] += [opened(11, 2.5, "/etc/nope", errno=2), opened(12, 6, HOSTILE, flags=1)]
    cart, db = {"pid": 10, "comm": b"cart"}, {"pid": 20, "comm": b"postgres", "cgroup": 101}
    made["trace_tcp"] = [
        tcp(CONNECT, 7, (client, server), initiator=THIS, **cart),
        tcp(_ACCEPT, 7.1, (server, client), initiator=_OTHER, **db),
        tcp(_CLOSE, 9, (client, server), sent=1000, received=50, end=1, **cart),
        tcp(CONNECT, 8, ((_CART, 40001), (_DB, 5433)), initiator=THIS, errno=111, **cart),
    ]
    return made


def recording(
    path: Path,
    records: dict[str, list[dict[str, Any]]] | None = None,
    attached: int = WALL,
    objects: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write the recording of these records: one node, of which 2 s are missing, and which lost 7 events. `attached`:
    since when it is traced. `objects`: changes of the cluster's objects before the first row."""
    records = shop() if records is None else records
    loaded = [load_gadget(name) for name in records]
    options = RunOptions(tuple(GadgetRun(gadget) for gadget in loaded), command=("record",))
    writer = RecordingWriter(path, meta_of(options), print)
    clocks = {"boot_ns": BOOT, "realtime_ns": WALL}
    hello = {"protocol": 1, "agent": "1", "node": "node-1", "architecture": "x86_64", **clocks}
    started = {"gadgets": [{"name": gadget.name, "programs": []} for gadget in loaded], **clocks}
    containers = [
        {"id": f"{number}" * 64, "namespace": namespace, "pod": pod, "container": container, "kind": "container"}
        for number, (namespace, pod, container) in enumerate(_CONTAINERS)
    ]
    names = {"containers": containers, "cgroups": {"100": "0" * 64, "101": "1" * 64}}
    first = [
        RecordedFrame("node-1", kind, json.dumps(content).encode())
        for kind, content in (
            (FrameType.HELLO, hello),
            (FrameType.STARTED, started),
            (FrameType.CONTAINERS, names),
        )
    ]
    writer.step(BOOT, WALL, first, objects=objects)
    for second in range(SECONDS):
        frames = []
        for number, gadget in enumerate(loaded):
            rows = RowWriter(gadget.record)
            for values in sorted(records[gadget.name], key=lambda one: one["timestamp"]):
                if second <= values["timestamp"] < second + 1:
                    at = BOOT + int(values["timestamp"] * SECOND)
                    rows.add(b"", at, {"cgroup": 100} | {k: v for k, v in values.items() if k != "timestamp"})
            until = BOOT + (second + 1) * SECOND
            frames.append(
                RecordedFrame("node-1", FrameType.EVENTS, EventsHeader(number, 1, until).encode() + rows.take())
            )
        writer.step(BOOT + (second + 1) * SECOND, WALL + (second + 1) * SECOND, frames)
    node = NodeCoverage(
        name="node-1",
        attached_ns=attached,
        until_ns=WALL + SECONDS * SECOND,
        gaps=(MissingSpan(since_ns=WALL + 14 * SECOND, until_ns=WALL + 16 * SECOND),),
        lost={"ring_full": 7},
    )
    covered = Coverage(
        began_ns=WALL,
        complete_ns=WALL,
        ended_ns=WALL + SECONDS * SECOND,
        nodes=(node,),
        gadgets=tuple(records),
        selected="namespace shop",
    )
    assert writer.close({"seconds": SECONDS}, covered.to_json())
    return path


def batch(name: str, rows: Sequence[dict[str, Any]], pods: Sequence[str] = ("cart-7d4b9c6f5-x2x7k",)) -> Batch:
    """Rows of a gadget, of these pods in turn; `timestamp` is in seconds."""
    writer = RowWriter(load_gadget(name).record)
    for values in rows:
        writer.add(b"", int(values["timestamp"] * SECOND), {k: v for k, v in values.items() if k != "timestamp"})
    made = decode(load_gadget(name), "node-1", writer.take())
    containers = [Container("container", "shop", pod, "app") for pod in pods]
    made.name_owners(lambda cgroups: Owners(np.arange(len(cgroups)) % len(containers), containers))
    return made
