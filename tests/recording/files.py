"""Recordings made by hand, for tests."""

import json
from pathlib import Path

from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.coverage import Coverage, NodeCoverage
from kubectl_gadget.wire.frames import FrameType

META = {"version": "1", "command": ["trace", "open"], "gadgets": []}
SECOND = 1_000_000_000

TRACED = Coverage(
    began_ns=1,
    complete_ns=1,
    ended_ns=1 + SECOND,
    nodes=(NodeCoverage(name="node-1", attached_ns=1, until_ns=1 + SECOND),),
    gadgets=("trace_open", "trace_exec"),
).to_json()
"""One node, traced for a second."""


def frame(text: str, node: str = "n1", type: int = FrameType.EVENTS) -> RecordedFrame:
    return RecordedFrame(node, type, text.encode())


def write(path: PathOrUrl, steps: int = 3, size: int = 100, failed: list[str] | None = None) -> list[RecordedIntake]:
    """A recording of so many steps, a second apart, each with a frame of containers and one of events."""
    said = [] if failed is None else failed
    writer = RecordingWriter(path, META, said.append)
    made = []
    for number in range(steps):
        frames = [
            frame(json.dumps({"step": number}), type=FrameType.CONTAINERS),
            frame(f"{number}:" + "x" * size, "n2"),
        ]
        step = RecordedIntake(number * SECOND, (100 + number) * SECOND, frames, {"uid\nname": bool(number % 2)})
        writer.step(*step[:4])
        made.append(step)
    writer.close({"seconds": steps})
    return made


def read(path: Path) -> list[RecordedIntake]:
    with RecordingReader(path) as reader:
        return list(reader.steps())
