"""What reading a recording costs: replays, a jump in a large file, Parquet, redaction, SQL, memory while recording.

    .venv/bin/python -m bench.recording_reading [--rounds 3] [--events 1000000] [--gigabytes 10] [--rows 100000000]

CPU time is that of all threads of this process. The large file repeats the segments of a smaller one at later times,
and all but a few of its events are holes, which a reader that jumps does not read. The many rows are the same Parquet
files under several names. Both are in the page cache, so what a disk costs is not measured.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.recording import OpensOfRun
from bench.rounds import Discard, alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.analysis.conversion import to_parquet
from kubectl_gadget.analysis.redact import redact
from kubectl_gadget.analysis.redaction_rules import Redactor, read_rules
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import RecordKind
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorder import Recorder, RecordingOptions
from kubectl_gadget.recording.replay_run import replay
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.pipeline import PipelineEvents
from kubectl_gadget.run.preparation import prepare
from kubectl_gadget.run.run_options import GadgetRun, Moment, Replay, RunOptions

_SQL = "select pod, count(*) as n, count(distinct path) as paths from open group by pod order by n desc limit 5"


class Count(Sink):
    """Counts rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.first = 0.0
        """CPU time at the first row"""

    def write(self, rows: Rows) -> None:
        self.first = self.first or time.process_time()
        self.rows += len(rows)

    def write_chunk(self, rows: Rows) -> None:
        self.write(rows)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""


def _options(**more: object) -> RunOptions:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True, quiet=True)
    return replace(options, **more)  # type: ignore[arg-type]


def make(source: OpensOfRun, path: Path) -> list[int]:
    """Records all of it. Returns the resident memory in MB at each tenth."""
    recorder = Recorder(RecordingOptions(path), _options())
    recorder.create(print)
    frames, sizes, taken = recorder.frames(source.begin()), list[int](), 0
    while frames.take(None) is not None:
        taken += 1
        while recorder.writer._waiting_bytes > 16 << 20:
            time.sleep(0.001)
        if taken % (len(source.steps) // 10) == 0:
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
    recorder.close({}, Coverage())
    assert not recorder.writer.dropped
    return sizes


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _replayed(path: Path, sink: Sink | None) -> float:
    options = _options(replay=Replay((path,)), output=OutputOptions(format="json"))
    if sink is not None:
        options = replace(options, make_sink=lambda *_: sink)
    return _cpu(lambda: replay(options, Discard(), Discard()))


def _live(source: OpensOfRun) -> float:
    preparation = prepare(_options(output=OutputOptions(format="json")), Discard())
    events = PipelineEvents(stop=lambda _: None, node_broke=lambda *_: None, warn=print)
    return _cpu(preparation.pipeline(source.begin(), lambda *_: True, events).run)


def _to_parquet(path: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _cpu(lambda: to_parquet([path], Path(folder) / "lake", Discard(), quiet=True))


def _redacted(path: Path) -> float:
    redactor = Redactor(read_rules("default"), b"0123456789abcdef")
    with tempfile.TemporaryFile() as copy:
        return _cpu(lambda: redact(path, copy, redactor))


def speeds(path: Path, source: OpensOfRun, rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU time for all events."""
    results = alternate(
        {
            "live run, -o json": lambda: _live(source),
            "replay -o json": lambda: _replayed(path, None),
            "replay, rows are counted": lambda: _replayed(path, Count()),
            "recording convert -o parquet": lambda: _to_parquet(path),
            "recording redact": lambda: _redacted(path),
        },
        rounds,
    )
    live = results["live run, -o json"]
    rows = []
    for name, found in results.items():
        per_second = spread([source.events / seconds for seconds in found])
        ratios = spread([seconds / before for seconds, before in zip(found, live, strict=True)])
        rows.append((name, per_second.text(), ratios.text(2)))
    print_table("Reading", ("what", "events per second of CPU", "CPU beside the live run"), rows)
    return results


def _shifted(control: bytes, by_ns: int) -> bytes:
    made = bytearray()
    for record in layout.records(control):
        if record.kind == RecordKind.EVENTS:
            made += layout.events_record(record.node, record.length)
        elif record.kind == RecordKind.STEP:
            made += layout.step_record(*(each + by_ns for each in layout.step_times(record.data)))
        elif record.kind != RecordKind.END:
            kind = RecordKind(record.kind)
            made += layout.record(kind, record.data, node=record.node, type=record.type)
    return bytes(made)


def enlarge(path: Path, large: Path, size: int) -> tuple[int, int]:
    """Makes a file of this size. Returns the times of its begin and end in ns."""
    with RecordingReader(path) as reader, large.open("wb") as out:
        places = list(reader.segment_places(reader.damage))
        costs = reader._costs()
        blocks = [(place.header, reader._block(place, costs, events=False), place) for place in places]
        first = blocks[0][0].first_ns
        span = blocks[-1][0].last_ns - first + 1_000_000_000
        out.write(layout.file_header())
        number = lap = 0
        while out.tell() < size:
            for header, control, place in blocks:
                stored = layout.compress(_shifted(control, lap * span))
                place.file.seek(place.offset + header.control_stored)
                times = {"first_ns": header.first_ns + lap * span, "last_ns": header.last_ns + lap * span}
                new = replace(
                    header,
                    number=number,
                    control_stored=len(stored),
                    control_bytes=len(_shifted(control, lap * span)),
                    control_crc=zlib.crc32(stored),
                    **times,
                )
                out.write(new.encode() + stored)
                middle = size // 2 - (64 << 20) < out.tell() < size // 2 + (64 << 20)
                if middle:
                    out.write(place.file.read(header.events_stored))
                else:
                    out.seek(header.events_stored, os.SEEK_CUR)
                number += 1
            lap += 1
        out.truncate()
        return first, first + lap * span


def jump(path: Path, gigabytes: float, rounds: int) -> list[float]:
    """Seconds of CPU time until the first row of the middle of a large file is there."""
    large = path.with_name("large.kgr")
    try:
        begin, end = enlarge(path, large, int(gigabytes * (1 << 30)))
        since = (begin + end) // 2
        found = list[float]()
        for _ in range(rounds):
            sink = Count()
            options = _options(
                replay=Replay((large,), Moment(since), Moment(since + 5_000_000_000)), make_sink=lambda *_, s=sink: s
            )
            began = time.process_time()
            replay(options, Discard(), Discard())
            assert sink.rows, "no rows in the middle"
            found.append(sink.first - began)
        rows = [(f"{large.stat().st_size / 2**30:.1f} GB", f"{sink.rows:,}", spread(found).text(2))]
        print_table(
            "A jump to the middle of a recording", ("size", "rows shown", "seconds of CPU until the first"), rows
        )
        return found
    finally:
        large.unlink(missing_ok=True)


def query(path: Path, events: int, rows: int) -> dict[str, float]:
    """A question about this many rows, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        lake = Path(folder) / "lake"
        to_parquet([path], lake, Discard(), quiet=True)
        for file in sorted(lake.glob("open/**/*.parquet")):
            for copy in range(1, -(-rows // events)):
                os.link(file, file.with_name(f"copy{copy}-{file.name}"))
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [sys.executable, "-m", "kubectl_gadget.cli.main", "recording", "query", str(lake), _SQL, "-o", "csv"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
        assert len(done.stdout.splitlines()) == 6
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = {"rows": -(-rows // events) * events, "seconds": seconds, "cpu": spent, "mb": after.ru_maxrss / 1024}
        row = (f"{found['rows']:,}", f"{seconds:.1f}", f"{spent:.1f}", f"{found['mb']:,.0f}")
        print_table(_SQL, ("rows", "seconds", "CPU seconds", "peak MB"), [row])
        return found


def memory(path: Path, events: int) -> list[int]:
    """Resident memory of a client that records so many events."""
    sizes = make(OpensOfRun(events), path)
    path.unlink()
    print_table(
        f"Resident memory while {events:,} events are recorded, MB at each tenth",
        [f"{number}0 %" for number in range(1, 11)],
        [list(map(str, sizes[:10]))],
    )
    return sizes


def main(words: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--rows", type=int, default=100_000_000)
    options = parser.parse_args(words)
    machine = describe_machine()
    print_machine()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        path, source = Path(folder) / "run.kgr", OpensOfRun(options.events)
        make(source, path)
        results = {
            "speeds": speeds(path, source, options.rounds),
            "jump": jump(path, options.gigabytes, options.rounds),
            "query": query(path, source.events, options.rows),
            "memory": memory(Path(folder) / "long.kgr", options.events * 3),
        }
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
