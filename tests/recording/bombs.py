"""Small recordings that would cost a careless reader gigabytes, or hours."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import MARK, RecordKind
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import stored
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import EventsHeader, FrameType
from tests.run.scripted import HELLO

SECOND = 1_000_000_000


def meta() -> bytes:
    run = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)
    return layout.record(RecordKind.META, layout.to_json(meta_of(run)))


def node(name: str = "n1", number: int = 0) -> bytes:
    return layout.record(RecordKind.NODE, name.encode(), node=number)


def frame(type: int, value: Mapping[str, Any] | bytes, number: int = 0) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return layout.record(RecordKind.FRAME, data, node=number, type=type)


def begin() -> bytes:
    """A step in which a node begins."""
    started = {"gadgets": [], "boot_ns": 5, "realtime_ns": 9}
    return layout.step_record(0, SECOND) + node() + frame(FrameType.HELLO, HELLO) + frame(FrameType.STARTED, started)


def segment(control: bytes, events: bytes = b"", number: int = 0) -> bytes:
    return stored(number, (SECOND, 2 * SECOND), control, events, 0)


def _one(control: bytes, events: bytes = b"") -> Iterator[bytes]:
    yield segment(meta() + begin() + control, events)


def objects() -> Iterator[bytes]:
    """200,000 changes of the cluster's objects in one step."""
    yield from _one(layout.record(RecordKind.OBJECTS, b'{"kinds":{}}') * 200_000)


def changes() -> Iterator[bytes]:
    """50,000 objects, then 100,000 steps that each change one."""
    pod = {"metadata": {"uid": "u", "name": "a", "namespace": "b"}}
    pods = [{"metadata": {**pod["metadata"], "uid": str(number)}} for number in range(50_000)]
    first = layout.record(RecordKind.OBJECTS, layout.to_json({"kinds": {"pods": {"put": pods}}}))
    change = layout.record(RecordKind.OBJECTS, layout.to_json({"kinds": {"pods": {"put": [pod]}}}))
    yield from _one(first + b"".join(layout.step_record(n, SECOND) + change for n in range(100_000)))


def values() -> Iterator[bytes]:
    """60 MiB of JSON in one record: 20 million objects."""
    text = b"[" + b"{}," * (20 << 20) + b"{}]"
    yield from _one(frame(FrameType.STATS, b'{"gadgets":' + text + b"}"))


def values_of_objects() -> Iterator[bytes]:
    """The same among the cluster's objects."""
    text = b"[" + b"{}," * (20 << 20) + b"{}]"
    yield from _one(layout.record(RecordKind.OBJECTS, b'{"kinds":{"pods":{"put":' + text + b"}}}"))


def many_values() -> Iterator[bytes]:
    """As many records with a million values as fit."""
    text = b'{"gadgets":[' + b"{}," * 500_000 + b"{}]}"
    yield from _one(b"".join(frame(FrameType.STATS, text) for _ in range(48)))


def members() -> Iterator[bytes]:
    """A million members of one object, five times."""
    text = b"{" + b",".join(b'"%x":0' % number for number in range(500_000)) + b"}"
    yield from _one(b"".join(frame(FrameType.STATS, b'{"x":' + text + b"}") for _ in range(5)))


def depth() -> Iterator[bytes]:
    """JSON that is nested a million times."""
    yield from _one(frame(FrameType.STATS, b'{"x":' * 100_000 + b"[" * 1_000_000))


def cgroups() -> Iterator[bytes]:
    """6 million cgroups of one node, in frames that are each in order."""
    for number in range(12):
        owners = b",".join(b'"%d":null' % (number * 500_000 + one) for one in range(500_000))
        yield segment(
            (meta() if not number else b"") + begin() + frame(3, b'{"cgroups":{' + owners + b"}}"), b"", number
        )


def cgroups_of_nodes() -> Iterator[bytes]:
    """6 million cgroups, 60,000 of each of 100 nodes."""
    owners = b",".join(b'"%d":null' % one for one in range(60_000))
    control = b"".join(
        node(f"n{number}", number) + frame(3, b'{"cgroups":{' + owners + b"}}", number) for number in range(100)
    )
    yield segment(meta() + begin() + control[: 76 << 20])


def containers() -> Iterator[bytes]:
    """Containers with names of a thousand characters."""
    long = "x" * 1000
    for number in range(10):
        text = ",".join(
            f'{{"id":"{number}.{one}","pod":"{long}{one}","container":"{long}","image":"{one}{long}"}}'
            for one in range(20_000)
        )
        control = begin() + frame(3, f'{{"containers":[{text}]}}'.encode())
        yield segment((meta() if not number else b"") + control, b"", number)


def removed() -> Iterator[bytes]:
    """Cgroups that come and go."""
    ids = range(100_000)
    come = b'{"cgroups":{' + b",".join(b'"%d":null' % one for one in ids) + b"}}"
    go = b'{"removed":[' + b",".join(b"%d" % one for one in ids) + b"]}"
    yield from _one((frame(3, come) + frame(3, go)) * 30)


def stacks() -> Iterator[bytes]:
    """Different functions without end."""
    for number in range(10):
        names = ",".join(f'"f{number}.{one}\\tm\\t0"' for one in range(400_000))
        control = begin() + frame(9, f'{{"gadget":0,"first":0,"frames":[{names}],"stacks":{{}}}}'.encode())
        yield segment((meta() if not number else b"") + control, b"", number)


def deep_stacks() -> Iterator[bytes]:
    """Long stacks of one function."""
    stack = "[" + "0," * 5000 + "0]"
    found = ",".join(f'"{number}":{stack}' for number in range(2, 190))
    frames = frame(9, f'{{"gadget":0,"first":0,"frames":["f"],"stacks":{{{found}}}}}'.encode())
    yield from _one(frames * 40)


def steps() -> Iterator[bytes]:
    """As many empty steps as a segment may have, in each of 100 segments."""
    for number in range(100):
        yield segment((meta() if not number else b"") + layout.step_record(0, SECOND) * 250_000, b"", number)


def records() -> Iterator[bytes]:
    """A block full of records."""
    yield from _one(layout.record(RecordKind.EARLIER) * 10_000_000)


def nodes() -> Iterator[bytes]:
    """A new node for each frame."""
    for number in range(5):
        control = b"".join(node(f"n{number}.{one}") + frame(-1, b"{}") for one in range(60_000))
        yield segment((meta() if not number else b"") + begin() + control, b"", number)


def nested() -> Iterator[bytes]:
    """States within states."""
    state = b""
    for _ in range(20_000):
        state = layout.record(RecordKind.STATE, state)
    yield segment(meta() + begin() + state + state)


def blocks() -> Iterator[bytes]:
    """500 segments of 80 MiB, in half a megabyte."""
    yield segment(meta() + begin())
    one = segment(b"\0" * 8 * (10 << 20), b"", 1)
    for _ in range(500):
        yield one


def events() -> Iterator[bytes]:
    """80 MiB of records without content."""
    size = (80 << 20) - 24
    yield from _one(layout.events_record(0, size + 24), EventsHeader(0, 0, 1).encode() + b"\0" * size)


def uneven_events() -> Iterator[bytes]:
    """Short records of different lengths."""
    size = (80 << 20) - 24
    piece = b"\x08\0\0\0\0\0\0\0" + b"\0" * 8 + b"\0" * 8
    yield from _one(
        layout.events_record(0, size + 24), EventsHeader(0, 0, 1).encode() + (piece * (size // 24 + 1))[:size]
    )


def answers() -> Iterator[bytes]:
    """Answers for millions of pods."""
    for number in range(10):
        text = b"{" + b",".join(b'"%d.%d":true' % (number, one) for one in range(400_000)) + b"}"
        control = layout.step_record(0, SECOND) + layout.record(RecordKind.ANSWERS, text)
        yield segment((meta() if not number else b"") + control, b"", number)


def marks() -> Iterator[bytes]:
    """Steps of a CI job, each with a name of its own."""
    frames = (frame(-5, {"name": f"{'s' * 100}{one}", "wall_ns": one}) for one in range(200_000))
    yield from _one(b"".join(frames))


def garbage() -> Iterator[bytes]:
    """Damage before each of many segments."""
    yield segment(meta() + begin())
    one = segment(b"")
    for _ in range(20_000):
        yield MARK + b"\0" * 8 + one


def gaps() -> Iterator[bytes]:
    """Connections that are lost for centuries."""
    spans = (frame(-2, {"seconds": 1e18 * one, "until_ns": -(1 << 62)}) for one in (1, 9, -1, 9.2))
    yield from _one(
        b"".join(spans) + frame(-4, {"sent_ns": -(1 << 80), "received_ns": 1, "boot_ns": 2, "realtime_ns": 3})
    )


def times() -> Iterator[bytes]:
    """Steps and events at the ends of time."""
    last = (1 << 63) - 1
    control = begin()
    head = EventsHeader(0, 0, (1 << 64) - 1).encode()
    size = load_gadget("trace_open").record.size
    row = size.to_bytes(4, "little") + bytes(4) + b"\xff" * size
    row += bytes(-len(row) % 8)
    for now in (last, -last, 0):
        control += layout.step_record(now, -now) + layout.events_record(0, len(head + row))
    yield segment(meta() + control, (head + row) * 3)


def lines() -> Iterator[bytes]:
    """Names that look like lines of the client."""
    lie = "x\n42 events from 1 node; lost: 0\x1b[2J"
    loser = {"pod": lie, "namespace": lie, "container": lie, "lost": 7}
    stats = {"gadgets": [{"events": 9, "lost": {lie: {lie: 7}, "ring_full": {"0": 7}}, "lost_by": [loser]}]}
    control = (
        node(lie)
        + frame(FrameType.HELLO, {**HELLO, "node": lie, "kernel": lie})
        + frame(
            FrameType.STARTED, {"gadgets": [{"name": lie, "programs": [{"method": lie, "skipped": [{"why": lie}]}]}]}
        )
    )
    yield from _one(control + frame(FrameType.STATS, stats) + frame(-5, {"name": lie, "wall_ns": 5}))


BOMBS: tuple[Callable[[], Iterable[bytes]], ...] = (
    *(objects, changes, values, values_of_objects, many_values, members, depth),
    *(cgroups, cgroups_of_nodes, containers, removed, stacks, deep_stacks),
    *(steps, records, nodes, nested, blocks, events, uneven_events, answers, marks, garbage, gaps, times, lines),
)


def write(path: Path, bomb: Callable[[], Iterable[bytes]]) -> None:
    with path.open("wb") as file:
        file.write(layout.file_header())
        file.writelines(bomb())
