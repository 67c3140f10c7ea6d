"""What a recording costs the run that it records, and how large it is: beside the same run without it.

    .venv/bin/python -m bench.recording [--rounds 3] [--events 1000000] [--json FILE]

Opens in 60 containers arrive at 100,000 events/s, as frames of a tenth of a second, and are printed as JSON; CPU time
is that of all threads. The writer's thread works beside the run, so what it dropped is part of the result.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.replay import CONTAINERS, Opens
from bench.rounds import Discard, alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.recording.recorder import Recorder, RecordingOptions
from kubectl_gadget.run.backlog import Events, Intake, Item
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.pipeline import PipelineEvents
from kubectl_gadget.run.preparation import prepare
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, Started
from kubectl_gadget.wire.frames import EventsHeader

RATE = 100_000
_FRAME_NS = 100_000_000
_BEGAN_NS = 1_000_000_000_000_000
_NODE = "node-1"
_MOST_WAITING = 16 << 20


class OpensOfRun:
    """A FrameSource: opens of one node, in the time that they would take. Frames are made before they are counted."""

    def __init__(self, events: int) -> None:
        opens = Opens(load_gadget("trace_open"), RATE * _FRAME_NS // 1_000_000_000)
        first = (
            Hello(node=_NODE, agent="1", boot_ns=_BEGAN_NS, realtime_ns=_BEGAN_NS),
            Started(boot_ns=_BEGAN_NS, realtime_ns=_BEGAN_NS),
            ContainerChanges.from_json(CONTAINERS),
        )
        self.steps = [Intake([Item(_NODE, content) for content in first], _BEGAN_NS)]
        self.events = 0
        while self.events < events:
            until = _BEGAN_NS + len(self.steps) * _FRAME_NS
            head = EventsHeader(0, len(self.steps), until)
            payload = head.encode() + opens.at(until - _FRAME_NS, until)
            self.steps.append(Intake([Item(_NODE, Events(payload), len(payload))], until))
            self.events += opens.count
        self._left: Iterator[Intake] = iter(())

    def begin(self) -> "OpensOfRun":
        """All of them from the beginning."""
        self._left = iter(self.steps)
        return self

    def take(self, due_ns: int | None) -> Intake | None:
        """See FrameSource."""
        return next(self._left, None)

    def drain(self) -> None:
        """See FrameSource."""


def write(source: OpensOfRun, path: Path | None, rows: bool = True) -> tuple[float, int, int]:
    """Microseconds of CPU time per event, bytes of the recording, and bytes that were dropped. Without `rows`, the
    steps are only recorded: what that costs is too little to be seen as a difference on a busy machine."""
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), output=OutputOptions(format="json"), local=True)
    preparation = prepare(options, Discard())
    events = PipelineEvents(stop=lambda _: None, node_broke=lambda *_: None, warn=print)
    began = time.process_time()
    if path is None:
        preparation.pipeline(source.begin(), lambda *_: True, events).run()
        return (time.process_time() - began) / source.events * 1e6, 0, 0
    recorder = Recorder(RecordingOptions(path), options)
    recorder.create(print)
    frames = recorder.frames(source.begin())
    if rows:
        preparation.pipeline(frames, recorder.wants(lambda *_: True), events).run()
    while frames.take(None) is not None:
        if recorder.writer._waiting_bytes > _MOST_WAITING:
            time.sleep(0.001)  # a run is never faster than this
    recorder.close({}, Coverage())
    spent, size = time.process_time() - began, path.stat().st_size
    path.unlink()
    return spent / source.events * 1e6, size, recorder.writer.dropped


def writing(events: int, rounds: int) -> dict[str, list[tuple[float, int, int]]]:
    """Runs with and without a recording, in turn."""
    source = OpensOfRun(events)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.kgr"
        runs = {
            "-o json": lambda: write(source, None),
            "-o json --record": lambda: write(source, path),
            "the recording alone": lambda: write(source, path, rows=False),
        }
        results = alternate(runs, rounds)
    without = [spent for spent, _, _ in results["-o json"]]
    rows = []
    for name, found in results.items():
        ratios = [spent / before for (spent, _, _), before in zip(found, without, strict=True)]
        rows.append(
            (
                name,
                spread([spent for spent, _, _ in found]).text(2),
                spread([ratio * 100 for ratio in ratios]).text(1),
                f"{max(size for _, size, _ in found) / source.events:.1f}",
                f"{max(dropped for _, _, dropped in found):,}",
            )
        )
    print_table("Writing", ("run", "CPU µs per event", "% of the first", "bytes per event", "bytes dropped"), rows)
    return results


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()
    write_json(options.json, machine, {"writing": writing(options.events, options.rounds)})


if __name__ == "__main__":
    main()
