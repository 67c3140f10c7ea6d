"""How large things are: wheel, BPF objects, image, an event on the wire; and whether compressing the stream would pay.

    sudo .venv/bin/python -m bench.size [--image build/agent-image.tar] [--compress] [--json FILE]

--compress takes real events of this machine (of a compiler's run, and of TCP connections) and compresses them frame by
frame, as permessage-deflate would, and as one stream. What compresses well in one frame of many events does not in the
small frames of a quiet node.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.idle import cgroup_root
from bench.rounds import arguments, describe_machine, print_machine, print_table, write_json
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.run.local_node import open_local
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.wire.agent_messages import Hello
from kubectl_gadget.wire.client_messages import FilterSpec, Run
from kubectl_gadget.wire.frames import FrameDecoder, FrameType, encode, split_events
from kubectl_gadget.wire.message import parse, read

PROJECT = Path(__file__).resolve().parent.parent
OBJECTS = PROJECT / "kubectl_gadget" / "built" / "objects"
LOOPS = Path(__file__).parent / "loops"
_COMPILER = "exec cc -O2 -o /dev/null tcp_loop.c"
WORK = {
    "trace_open": _COMPILER,
    "trace_exec": _COMPILER,
    "trace_tcp": "cc -O2 -o tcp_loop tcp_loop.c && exec ./tcp_loop connect 1000",
}
"""What happens while a gadget runs, by its name. It has a cgroup of its own, and a folder whose name always has the
same length: what other programs do, and where this project is, must not count."""


def sizes(image: Path | None) -> dict[str, int]:
    """Sizes in bytes of what is shipped."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", name]
        built = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
        if built.returncode == 0:
            found["wheel"] = next(Path(name).glob("*.whl")).stat().st_size
        else:
            print(f"the wheel is left out: {built.stderr.strip().splitlines()[-1]}")
    for architecture in sorted(OBJECTS.iterdir()):
        of_one = [path.stat().st_size for path in architecture.glob("*.o")]
        found[f"{len(of_one)} BPF objects, {architecture.name}"] = sum(of_one)
        found[f"the largest of them, {architecture.name}"] = max(of_one)
    if image is not None:
        found["image, as tar"] = image.stat().st_size
        found["image, gzip -6"] = len(zlib.compress(image.read_bytes(), 6))
    else:
        print("the image is left out: make image, then --image build/agent-image.tar")
    return found


async def record(name: str) -> tuple[list[bytes], int]:
    """EVENTS payloads with the events of the gadget's work alone, and the number of these."""
    folder = Path(tempfile.mkdtemp(prefix="bench-size-"))
    cgroup = cgroup_root() / folder.name
    cgroup.mkdir()
    try:
        shutil.copytree(LOOPS, folder, dirs_exist_ok=True)
        payloads = await _payloads(name, folder, cgroup)
        found = [_events_of(cgroup.stat().st_ino, load_gadget(name), payload) for payload in payloads]
    finally:
        cgroup.rmdir()
        shutil.rmtree(folder)
    return [payload for payload, count in found if count], sum(count for _, count in found)


def _events_of(cgroup: int, gadget: Gadget, payload: bytes) -> tuple[bytes, int]:
    """The payload with the events of one cgroup only, and their number."""
    head, data = split_events(payload)
    batch = decode(gadget, "", data)
    ends = np.append(batch.starts[1:], len(data) + _RECORD_HEADER)
    own = batch.cgroups() == cgroup
    spans = zip(batch.starts[own].tolist(), ends[own].tolist(), strict=True)
    records = [data[start - _RECORD_HEADER : end - _RECORD_HEADER] for start, end in spans]
    return head.encode() + b"".join(records), len(records)


async def _payloads(name: str, folder: Path, cgroup: Path) -> list[bytes]:
    """What this machine sends during the gadget's work."""
    request = build([GadgetRun(load_gadget(name))], [{}], 4 << 20)
    stream, decoder, payloads = await open_local(), FrameDecoder(), list[bytes]()
    busy: asyncio.subprocess.Process | None = None
    try:
        async with asyncio.timeout(60):
            while data := await stream.receive():
                for frame in decoder.feed(data):
                    if frame.type == FrameType.HELLO:
                        await stream.send(
                            encode(
                                FrameType.OBJECT,
                                request.object_bytes(0, read(Hello, frame.payload, "HELLO").architecture),
                            )
                        )
                        run = Run(gadgets=tuple(request.gadgets), filter=FilterSpec(host=True))
                        await stream.send(encode(FrameType.RUN, run.to_bytes()))
                    elif frame.type == FrameType.STARTED:
                        work = f'echo $$ >"$0/cgroup.procs" && {WORK[name]}'
                        busy = await asyncio.create_subprocess_exec(
                            *("sh", "-c", work, str(cgroup)), cwd=folder, stdout=asyncio.subprocess.DEVNULL
                        )
                        await busy.wait()
                        await asyncio.sleep(1.2)
                        await stream.send(encode(FrameType.STOP, b"{}"))
                    elif frame.type == FrameType.EVENTS and len(frame.payload) > len(_HEAD):
                        payloads.append(frame.payload)
                    elif frame.type == FrameType.END:
                        end = parse(frame.payload)
                        if "stats" not in end:
                            raise SystemExit(f"{name} did not run here: {end.get('error')}")
    finally:
        await stream.close()
    return payloads


_HEAD = encode(0) + bytes(16)
_RECORD_HEADER = 8


def compressed(payloads: Sequence[bytes], level: int, whole: bool) -> tuple[int, float]:
    """Compressed bytes and CPU seconds: each frame by itself, or (`whole`) with the earlier ones in the window."""
    begun, total, stream = time.process_time(), 0, zlib.compressobj(level, zlib.DEFLATED, -15)
    for payload in payloads:
        if not whole:
            stream = zlib.compressobj(level, zlib.DEFLATED, -15)
        total += len(stream.compress(payload)) + len(stream.flush(zlib.Z_SYNC_FLUSH))
    return total, time.process_time() - begun


def main() -> None:
    parser = arguments(__doc__, 1)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--compress", action="store_true")
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()
    default = PROJECT / "build" / "agent-image.tar"
    found = sizes(options.image or (default if default.exists() else None))
    print_table("What is shipped", ("", "KiB"), [[name, f"{bytes / 1024:,.0f}"] for name, bytes in found.items()])
    rows = list[list[object]]()
    results = dict[str, dict[str, object]]()
    for name in WORK:
        payloads, events = asyncio.run(record(name))
        if not events:
            print(f"{name}: nothing happened here")
            continue
        plain = sum(len(split_events(payload)[1]) for payload in payloads)
        line: list[object] = [name, f"{events:,}", f"{len(payloads):,}", f"{plain / events:.0f}"]
        results[name] = {"events": events, "frames": len(payloads), "bytes": plain}
        for level, whole in ((1, False), (1, True), (6, True)) if options.compress else ():
            size, seconds = compressed(payloads, level, whole)
            line.append(f"{size / events:.0f} ({seconds / events * 1e9:,.0f} ns)")
            results[name][f"deflate {level}, {'window' if whole else 'frame'}"] = [size, seconds]
        rows.append(line)
    headers = ["", "events", "frames", "bytes per event"]
    if options.compress:
        headers += ["deflate -1, each frame (CPU per event)", "-1, with the window", "-6, with the window"]
    print_table("On the wire: opens and execs of a compiler, and TCP connections", headers, rows)
    write_json(options.json, machine, {"sizes": found, "wire": results})


if __name__ == "__main__":
    main()
