"""A double of a cluster whose nodes' agents replay made-up opens, in one process, for any number of nodes.

    .venv/bin/python -m bench.replay KUBECONFIG --nodes 1000 --rate 20000

It prints `sent N` when it is interrupted. It must cost less than the client that is measured, so all nodes send the
same records, made once a turn; and a thousand nodes turn less often than one.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from kubectl_gadget import __version__
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.gadget_kinds import NO_OPEN_FLAGS
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.wire.frames import EventsHeader, FrameDecoder, FrameType, encode
from tests.fake_cluster import FakeCluster
from tests.json_frames import encode_json

COMMS = (b"nginx", b"python3", b"sh", b"java", b"node")
PATHS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/lib/python3/dist-packages/yaml/__init__.py",
    "/proc/self/status",
    "/var/log/nginx/access.log",
    "/lib/x86_64-linux-gnu/libc.so.6",
)
CONTAINERS = {
    "containers": [
        {
            "id": f"{number:064x}",
            "namespace": f"ns-{number % 5}",
            "pod": f"pod-{number}",
            "pod_uid": f"uid-{number}",
            "container": "main",
            "kind": "container",
        }
        for number in range(60)
    ],
    "cgroups": {str(100 + number): f"{number:064x}" for number in range(60)},
}
STDOUT, _ERROR = b"\1", b"\3"


class Opens:
    """Ring buffer bytes of opens in 60 containers, with paths of typical lengths; `at` sets their times."""

    def __init__(self, gadget: Gadget, count: int) -> None:
        writer = RowWriter(gadget.record)
        for number in range(count):
            values: dict[str, Value] = {
                "cgroup": 100 + number % 60,
                "pid": number % 30000,
                "comm": COMMS[number % 5],
                "fd": 3 + number % 20,
                "flags": 0o2000000,
                "opened_flags": NO_OPEN_FLAGS,  # as without --resolve
                "path": PATHS[number % 7 % 5] + ("" if number % 3 else f".{number}"),
            }
            writer.add(b"", 0, values)
        self._bytes = np.frombuffer(writer.take(), np.uint8).copy()
        self.count = count
        place = next(field.offset for field in gadget.record.fields if field.name == "timestamp")
        starts, start = [], 0
        while start < len(self._bytes):
            starts.append((start + 8 + place) // 8)
            length = int(self._bytes[start : start + 4].view(np.uint32)[0])
            start += 8 + (length + 7 & ~7)
        self._times = np.array(starts)

    def at(self, first: int, last: int) -> bytes:
        """All opens, evenly spread between two boot times."""
        if self.count:
            self._bytes.view(np.uint64)[self._times] = np.linspace(first, last, self.count).astype(np.uint64)
        return self._bytes.tobytes()


class Replay:
    """The agents of all nodes."""

    def __init__(self, nodes: int, rate: float, turn: float | None = None) -> None:
        self.turn = turn or max(0.05, nodes / 10_000)
        self.sent = 0
        self._opens = Opens(load_gadget("trace_open"), max(1, round(rate * self.turn / nodes)))
        self._number, self._payload, self._until = -1, b"", 0

    async def serve(self, request: web.Request, node: str, *_: object) -> web.WebSocketResponse:
        """Serves one exec, as in tests/fake_cluster/exec.py."""
        websocket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",), max_msg_size=0, compress=False)
        await websocket.prepare(request)
        hello = {"protocol": 1, "agent": __version__, "node": node, "architecture": "x86_64", "kernel": "6.12.0"}
        hello |= {
            "kinds": ["stream", "snapshot", "top"],
            "can": {},
            "problems": [],
            "cgroup_root": "/sys/fs/cgroup",
            **clocks(),
        }
        await websocket.send_bytes(STDOUT + encode(FrameType.BOOT, b"have") + encode_json(FrameType.HELLO, hello))
        decoder, task, counter = FrameDecoder(), None, [0]
        try:
            async for message in websocket:
                if message.type is not WSMsgType.BINARY or message.data[:1] != b"\0":
                    continue
                for frame in decoder.feed(message.data[1:]):
                    if frame.type == FrameType.RUN:
                        names = [gadget["name"] for gadget in json.loads(bytes(frame.payload))["gadgets"]]
                        started = {"gadgets": [{"name": name, "programs": []} for name in names], **clocks()}
                        containers = encode_json(FrameType.CONTAINERS, self.containers(node))
                        await websocket.send_bytes(STDOUT + encode_json(FrameType.STARTED, started) + containers)
                        task = asyncio.create_task(self.send(websocket, counter, names), name=f"rows of {node}")
                    elif frame.type == FrameType.STOP:
                        if task:
                            task.cancel()
                            await asyncio.gather(task, return_exceptions=True)
                        await self._end(websocket, counter[0])
        finally:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return websocket

    def containers(self, node: str) -> dict[str, Any]:
        """Return the content of CONTAINERS."""
        return CONTAINERS

    async def send(self, websocket: web.WebSocketResponse, counter: list[int], names: Sequence[str]) -> None:
        """Sends rows of one node until it is cancelled. `names`: the gadgets of its run."""
        for sequence in range(1 << 62):
            wait = self.turn - time.monotonic() % self.turn
            await asyncio.sleep(wait)
            payload, until = self._turn()
            frame = encode(FrameType.EVENTS, EventsHeader(0, sequence, until).encode() + payload)
            counter[0] += self._opens.count
            self.sent += self._opens.count
            await websocket.send_bytes(STDOUT + frame)

    def _turn(self) -> tuple[bytes, int]:
        number = int(time.monotonic() / self.turn)
        if number != self._number:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._number, self._until = number, now
            self._payload = self._opens.at(now - int(self.turn * 1e9), now)
        return self._payload, self._until

    async def _end(self, websocket: web.WebSocketResponse, sent: int) -> None:
        stats = {"gadgets": [{"events": sent, "bytes": 0, "lost": {}}], "agent": {}, **clocks()}
        end = encode_json(FrameType.END, {"reason": "stop", "stats": stats})
        await websocket.send_bytes(STDOUT + end)
        await websocket.send_bytes(_ERROR + json.dumps({"metadata": {}, "status": "Success"}).encode())
        await websocket.close()


def _label(pool: int, node: dict[str, Any]) -> None:
    node["metadata"]["labels"]["pool"] = str(pool)


def clocks() -> dict[str, int]:
    return {"boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "realtime_ns": time.time_ns()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20_000, help="events per second of all nodes together")
    parser.add_argument("--turn", type=float, help="seconds between two frames of a node")
    parser.add_argument("--pools", type=int, default=1, help="nodes have the labels pool=0, pool=1 and so on in turn")
    options = parser.parse_args()
    replay = Replay(options.nodes, options.rate, options.turn)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with FakeCluster(options.nodes, serve_exec=replay.serve) as cluster:
        for place, node in enumerate(cluster.nodes):
            cluster.store.change("nodes", "", node, partial(_label, place % options.pools))
        cluster.write_kubeconfig(options.kubeconfig)
        sys.stdout.write(f"export KUBECONFIG={options.kubeconfig}\n")
        sys.stdout.flush()
        await ended.wait()
    with contextlib.suppress(BrokenPipeError):  # the benchmark was stopped
        sys.stdout.write(f"sent {replay.sent}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
