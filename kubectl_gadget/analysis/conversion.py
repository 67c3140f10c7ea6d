"""Converts a recording to files of other formats. A conversion is a replay whose rows go into files.

A recording may come from anybody, so nothing in it names a file outside the destination, and an error or
Ctrl-C leaves no file that looks whole.
"""

import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from kubectl_gadget.analysis.perfetto import PerfettoSink
from kubectl_gadget.analysis.views import table_name
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.sink import Sink, WholeSink
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.replay_run import Replayed, replay, replayed
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run import coverage, summary
from kubectl_gadget.run.run_options import GadgetRun, Moment, Replay, RunOptions

if TYPE_CHECKING:
    from kubectl_gadget.analysis.parquet import ParquetSink

FILE_PER_GADGET = {"jsonl": "json", "csv": "csv"}
"""Formats with one file for each gadget, and the output format of their rows."""
ONE_FILE = ("perfetto", "pcap-ng", "folded", "speedscope", "pprof")
_INTERRUPTED = 128

Span = tuple[Moment | None, Moment | None]
WHOLE: Span = (None, None)


def to_parquet(
    files: Sequence[PathOrUrl], root: Path, stderr: TextIO, span: Span = WHOLE, quiet: bool = False
) -> tuple[int, dict[str, int]]:
    """Adds recordings to a dataset. Returns the exit code, and the number of rows by table. Raises GadgetError."""
    from kubectl_gadget.analysis.parquet import ParquetSink, RunName  # needs pyarrow

    worst, rows = 0, dict[str, int]()
    files, span = _part(files, span)
    for file in files:
        with RecordingReader(file) as reader:
            run = RecordedRun.from_meta(reader.meta, str(file))
            first_ns = next((header.first_ns for header in reader.segments()), 0)
            checksum = zlib.crc32(json.dumps(reader.meta, sort_keys=True).encode())
            name = RunName(f"{_time(run.began_ns)}-{checksum:08x}", _time(first_ns), run.began_ns)
        try:
            sink = ParquetSink(root, name, [item.gadget for item in run.gadgets])
        except OSError as error:
            raise UsageError(f"{root}: {error.strerror}") from None
        code = _into_dataset(_options([file], run, span, quiet), run, sink, stderr)
        if code > _INTERRUPTED:
            return code, rows
        worst = max(worst, code)
        for table, count in sink.rows.items():
            rows[table] = rows.get(table, 0) + count
    return worst, rows


def _part(files: Sequence[PathOrUrl], span: Span) -> tuple[list[PathOrUrl], Span]:
    """The files that hold a part of the span, and the span in absolute times: as in a replay, relative times count back
    from the end of the last file. Raises UsageError."""
    last = dict[PathOrUrl, int]()
    for file in files:
        with RecordingReader(file) as reader:
            last[file] = max(header.last_ns for header in reader.segments())
    end_ns = max(last.values())
    since, until = (moment and Moment(_absolute(moment, end_ns)) for moment in span)
    if since is None:
        return list(last), (None, until)
    begin_ns = _absolute(since, end_ns)
    return [file for file in last if not last[file] < begin_ns <= end_ns], (since, until)


def _absolute(moment: Moment, end_ns: int) -> int:
    return end_ns - moment.ago_ns if moment.absolute_ns is None else moment.absolute_ns


def _into_dataset(options: RunOptions, run: RecordedRun, sink: "ParquetSink", stderr: TextIO) -> int:
    try:
        with replayed(replace(options, make_sink=lambda *_: sink, sort=False), io.StringIO(), stderr) as shown:
            if options.quiet and (doubted := _doubts(shown)):
                stderr.write(escape(f"{shown.readers[0].path}: rows are missing: {coverage.some(doubted)}") + "\n")
        if shown.code > _INTERRUPTED:
            sink.abandon()
        else:
            sink.finish({"run": _described(run), "loss": _losses(shown), "gadgets": _schemas(run)}, shown.covered())
    except BaseException as error:
        sink.abandon()
        if isinstance(error, OSError):
            raise GadgetError(f"the dataset cannot be written: {error.strerror or error}") from None
        raise
    return shown.code


def to_files(files: Sequence[PathOrUrl], format: str, folder: Path, stderr: TextIO, span: Span = WHOLE) -> int:
    """Writes the rows of recordings of the same gadgets into one file for each of them. Returns the exit code."""
    run = _first_run(files)
    options = _options(files, run, span)
    gadgets = [item.gadget for item in run.gadgets]
    names = _file_names(gadgets, format)
    made: list[Path] = []
    with _whole_or_none(made, folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sinks: dict[str, Sink] = {}
        for gadget in gadgets:
            path = folder / names[gadget.name]
            stream = stack.enter_context(_create(path))
            made.append(path)
            sinks[gadget.name] = make_sink(OutputOptions(FILE_PER_GADGET[format]), [gadget], stream)
        return _until_done(options, _Divided(gadgets, sinks), stderr, made)


def to_one_file(files: Sequence[PathOrUrl], format: str, path: Path, stderr: TextIO, span: Span = WHOLE) -> int:
    """Writes a trace, packets or a profile. Returns the exit code."""
    run = _first_run(files)
    options = _options(files, run, span)
    made: list[Path] = []
    with _whole_or_none(made, path), _create(path) as stream:
        made.append(path)
        if format == "perfetto":
            sink = PerfettoSink(stream, [item.gadget for item in options.gadgets])
            return _until_done(options, sink, stderr, made)
        gadgets = [run for run in options.gadgets if _has(run.gadget, format)]
        if not gadgets:
            has = ", ".join(" ".join(item.gadget.command) for item in options.gadgets)
            what = "packets" if format == "pcap-ng" else "call stacks of a profile"
            raise UsageError(f"-o {format} is for {what}, and the recording has {has}")
        shown = replace(options, gadgets=tuple(gadgets), output=OutputOptions(format))
        return _until_done(shown, None, stderr, made, stream)


@contextmanager
def _whole_or_none(made: Sequence[Path], destination: Path) -> Iterator[None]:
    """Removes what was made, when it is not whole. Raises GadgetError for errors of the disk."""
    try:
        yield
    except BaseException as error:
        _remove(made)
        if isinstance(error, OSError):
            raise GadgetError(f"{destination} cannot be written: {error.strerror or error}") from None
        raise


def _until_done(
    options: RunOptions, sink: Sink | None, stderr: TextIO, made: Sequence[Path], stream: TextIO | None = None
) -> int:
    if sink is not None:
        options = replace(options, make_sink=lambda *_: sink)
    code = replay(options, stream or io.StringIO(), stderr)
    if code > _INTERRUPTED:
        _remove(made)
    return code


class _Divided(WholeSink):
    """Gives each gadget's rows to its own sink, in their order."""

    def __init__(self, gadgets: Sequence[Gadget], sinks: Mapping[str, Sink]) -> None:
        self._names = [gadget.name for gadget in gadgets]
        self._sinks = sinks

    def start(self) -> None:
        self._each(Sink.start)

    def write(self, rows: Rows) -> None:
        if len(self._names) == 1:
            self._sinks[self._names[0]].write(rows)
            return
        places = [self._names.index(part.gadget.name) for part in rows.parts]
        codes = np.repeat(places, [len(part) for part in rows.parts])
        if rows.order is not None:
            codes = codes[rows.order]
        for place in sorted(set(places)):
            self._sinks[self._names[place]].write(rows.take(np.flatnonzero(codes == place)))

    def write_block(self, rows: Rows) -> None:
        self._sinks[self._names[0]].write_block(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._each(lambda sink: sink.gap(node, seconds, until_ns))

    def flush(self) -> None:
        self._each(Sink.flush)

    def close(self) -> None:
        self._each(Sink.close)

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in self._sinks.values():
            call(sink)


def _options(files: Sequence[PathOrUrl], run: RecordedRun, span: Span, quiet: bool = False) -> RunOptions:
    gadgets = tuple(GadgetRun(item.gadget, dict(item.parameters)) for item in run.gadgets)
    return RunOptions(gadgets, replay=Replay(tuple(files), *span), quiet=quiet)


def _first_run(files: Sequence[PathOrUrl]) -> RecordedRun:
    with RecordingReader(files[0]) as reader:
        return RecordedRun.from_meta(reader.meta, str(files[0]))


def _file_names(gadgets: Sequence[Gadget], format: str) -> dict[str, str]:
    found = {gadget.name: table_name(gadget) for gadget in gadgets}
    if len(set(found.values())) < len(found):
        found = {gadget.name: f"{found[gadget.name]}-{number}" for number, gadget in enumerate(gadgets)}
    return {name: f"{text}.{format}" for name, text in found.items()}


def _has(gadget: Gadget, format: str) -> bool:
    if format == "pcap-ng":
        return any(field.type == "gadget_data" for field in gadget.record.fields)
    return bool(gadget.totals.weight)


def _create(path: Path) -> TextIO:
    """Raises UsageError when the file exists or cannot be created."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists", "another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return os.fdopen(handle, "w", encoding="utf-8", newline="\n")


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _time(ns: int) -> str:
    try:
        second = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    except (OverflowError, OSError, ValueError):
        second = datetime.fromtimestamp(0, UTC)
    return f"{second:%Y%m%dT%H%M%S}.{ns % 1_000_000_000:09d}Z"


def _described(run: RecordedRun) -> dict[str, object]:
    return {
        "version": run.version,
        "command": list(run.command),
        "began_ns": run.began_ns,
        "selection": run.selection,
        "filter": run.filter,
    }


def _schemas(run: RecordedRun) -> list[dict[str, object]]:
    return [
        {
            "name": item.gadget.name,
            "command": list(item.gadget.command),
            "parameters": dict(item.parameters),
            "columns": {column.name: column.description for column in item.gadget.columns},
        }
        for item in run.gadgets
    ]


def _doubts(run: Replayed) -> list[str]:
    """Return what a run may not have seen, as clauses."""
    found = (coverage.doubts(end.coverage, end.began_ns) for end in run.ends if end.coverage is not None)
    return [*(reason.text for reasons in found for reason in reasons), *run.without_coverage()]


def _losses(run: Replayed) -> dict[str, object]:
    """Return what is missing in the rows, by node and in the files."""
    return {
        "doubts": _doubts(run),
        "nodes": {
            name: {
                "events": summary.events(state),
                "lost": dict(summary.lost(state)),
                "gaps": state.gaps,
                "gap_seconds": round(state.gap_seconds, 3),
                "error": None if state.error is None else str(state.error),
            }
            for name, state in run.frames.states.items()
        },
        "damaged_segments": sum(reader.damage.segments for reader in run.readers),
        "cut": any(reader.damage.is_cut or (reader.was_read and reader.end is None) for reader in run.readers),
        "dropped_bytes": sum(reader.dropped for reader in run.readers),
        "unreadable_frames": sum(run.frames.unreadable.values()),
    }
