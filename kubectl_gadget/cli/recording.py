"""Commands of recordings: `record`, `replay` and `report`; `recording info`, `redact`, `query` and `convert`."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kubectl_gadget import gadgets
from kubectl_gadget.cli import run, values
from kubectl_gadget.cli.command import Entry, GadgetGroup, GroupParts, make_group, own_level
from kubectl_gadget.cli.flags import (
    ENGINE,
    SHOW,
    AllowHost,
    Browser,
    Count,
    FlagSet,
    OnlyWarnings,
    OutputFlags,
    Page,
    RecordFile,
    Seconds,
    Switch,
    Text,
    TypedOnly,
    Verbose,
    WebPort,
    flag,
    format_flag,
)
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.pages import page_of, unknown_gadget
from kubectl_gadget.cli.printing import print_table, say
from kubectl_gadget.cli.run_flags import SilentRunFlags, replaying, run_options
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.registry import CONVERSIONS, QUERIES, REPORTS
from kubectl_gadget.run.run_options import GadgetRun, Moment, Replay, with_peer_names
from kubectl_gadget.wording import count

if TYPE_CHECKING:
    from kubectl_gadget.analysis.redact import Redaction
    from kubectl_gadget.analysis.redaction_rules import Redactor
    from kubectl_gadget.output.sink import TakingSink
    from kubectl_gadget.recording.places import PathOrUrl
    from kubectl_gadget.recording.recorder import RecordingOptions, Trigger
    from kubectl_gadget.recording.replay_run import RecordingInfo
    from kubectl_gadget.rows.rows import Rows


# `record`: a good set of gadgets, written immediately, or the last minutes before an event

_SETS = {
    "incident": ("trace_oomkill", "trace_mount", "trace_privilege", "trace_tcpretrans", "trace_fsslower"),
    "security": (
        "trace_privilege",
        "trace_bpf",
        "trace_modules",
        "trace_mount",
        "trace_fdpass",
        "trace_bind",
        "trace_sni",
    ),
    "network": ("trace_tcpretrans", "trace_bind", "trace_sni", "trace_tls"),
    "files": ("trace_open", "trace_file", "trace_mount", "trace_fsslower"),
    "performance": ("trace_oomkill", "trace_fsslower", "trace_tcpretrans"),
}
"""Gadgets beside the process gadgets, which every set has."""
_BEHAVIOR = "behavior"
"""what `behavior` makes facts of, and nothing else"""
_WITH_FLOWS = ("incident", "security", "network")
"""sets that have all of `flows`; others have DNS alone, for its delays"""
_SYSCALLS = "behavior-syscalls"
"""the same with system calls, for `advise seccomp`"""
_PURPOSES = (*_SETS, _BEHAVIOR, _SYSCALLS)
_PARAMETERS = {"trace_open": {"failed": True}}
"""of the incident's opens: what was missing or forbidden"""
_MEMORY = 256 << 20
_AFTER_SECONDS = 5.0
_FILES = 10
_SMALLEST_FILE = 1 << 20


def _file_size(text: str) -> int:
    size = values.size(text)
    if size < _SMALLEST_FILE:
        raise ValueError("must be at least 1Mi")
    return size


@dataclass(frozen=True)
class RecordFlags(FlagSet):
    """Flags for what is recorded, and where it goes."""

    output: Annotated[
        Text, flag(SHOW, "--output, -o FILE", "A file, or s3://, gs:// or az:// (default: recording-TIME.kgr)")
    ] = None
    purpose: Annotated[
        Text, flag(SHOW, "--for PURPOSE", f"{', '.join(_PURPOSES)} (default: incident)", choices=_PURPOSES)
    ] = None
    keep: Annotated[
        Seconds, flag(SHOW, "--keep TIME", "Keep the last 5m in memory, and write them when something happens")
    ] = None
    keep_size: Annotated[
        int | None, flag(SHOW, "--keep-size SIZE", "Memory for --keep (default: 256Mi)"), _file_size
    ] = None
    on_match: Annotated[
        Text, flag(SHOW, "--on-match EXPR", "With --keep: write when a row matches this expression (CEL)")
    ] = None
    rotate_size: Annotated[
        int | None, flag(SHOW, "--rotate-size SIZE", "Begin a new file before this size: 100Mi"), _file_size
    ] = None
    rotate_every: Annotated[Seconds, flag(SHOW, "--rotate-every TIME", "Begin a new file after this time: 1h")] = None
    files: Annotated[
        Count, flag(SHOW, "--files N", "Keep the last N files; with --keep, the first N (default: 10)")
    ] = None
    report: Page = None
    timeout: Annotated[
        Seconds, flag(SHOW, "--timeout TIME", "Stop after this time: 30m, 24h (default: at Ctrl-C)"), TypedOnly.END
    ] = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None

    def validate(self) -> None:
        """Raises UsageError if flags contradict each other."""
        rotates = self.rotate_size is not None or self.rotate_every is not None
        if self.keep is None and (self.on_match is not None or self.keep_size is not None):
            raise UsageError("--on-match and --keep-size need --keep", "--keep 5m")
        if self.keep is not None and rotates:
            raise UsageError("--keep and --rotate-… cannot be used together: --keep writes a file for each match")
        if self.report is not None and (self.keep is not None or rotates):
            raise UsageError("--report is of one recording, and --keep and --rotate-… write several")
        if self.files is not None and not (rotates or self.keep):
            raise UsageError("--files needs several files", "--rotate-size 100Mi, --rotate-every 1h, or --keep 5m")


def record(pods: Pods, flags: SilentRunFlags, what: RecordFlags) -> int:
    from kubectl_gadget.recording.recorder import Recorder, Trigger

    what.validate()
    purpose, trigger = what.purpose or "incident", Trigger()
    output = OutputFlags(timeout=what.timeout, quiet=what.quiet, verbose=what.verbose)
    runs, command = _gadgets(purpose)
    options = run_options(runs, pods, flags.with_output(output))

    def make_sink(gadgets: Sequence[Gadget], *_: object) -> "TakingSink":
        from kubectl_gadget.filters.filter import compile_filter
        from kubectl_gadget.output.sink import TakingSink

        wanted = None if what.on_match is None else compile_filter(what.on_match, gadgets, "--on-match")

        def look(rows: "Rows") -> None:
            if wanted is not None and len(rows) and rows.mask(wanted.mask).any():
                trigger(f"a row matched {wanted.text}")

        return TakingSink(look)

    recording = _recording(what, trigger)
    recorder = partial(Recorder, recording)
    options = replace(options, record=recorder, make_sink=make_sink, doing=f"recording ({purpose})", command=command)
    options = replace(options, typed=("record", *(("--for", purpose) if what.purpose else ())))
    code = run.run(options, sys.stdout, sys.stderr)
    if what.report is not None:
        run.write_page(Replay((recording.path,)), what.report, replace(options, recorded_in=recording.path))
    return code


@dataclass(frozen=True)
class UiFlags(FlagSet):
    """Flags for the live page."""

    browser: Browser = None
    web_port: WebPort = None
    allow_host: AllowHost = None
    timeout: Annotated[
        Seconds, flag(SHOW, "--timeout TIME", "Stop after this time: 30m (default: at Ctrl-C)"), TypedOnly.END
    ] = None
    record: RecordFile = None
    report: Page = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


def ui(pods: Pods, flags: SilentRunFlags, what: UiFlags) -> int:
    """Shows the gadgets of `record` as a live page."""

    def make_sink(*_: object) -> "TakingSink":
        from kubectl_gadget.output.sink import TakingSink

        return TakingSink(lambda rows: None)

    runs, command = _gadgets("incident")
    output = OutputFlags(
        ui=True,
        browser=what.browser,
        web_port=what.web_port,
        allow_host=what.allow_host,
        timeout=what.timeout,
        record=what.record,
        report=what.report,
        quiet=what.quiet,
        verbose=what.verbose,
    )
    options = with_peer_names(run_options(runs, pods, flags.with_output(output)))
    options = replace(options, make_sink=make_sink, doing="showing a live page", command=command, typed=("ui",))
    return run.run(options, sys.stdout, sys.stderr)


def _recording(what: RecordFlags, trigger: "Trigger") -> "RecordingOptions":
    from kubectl_gadget.recording.places import place_of
    from kubectl_gadget.recording.recorder import RecordingOptions
    from kubectl_gadget.recording.writer import Ring, Rotation

    path = place_of(what.output or f"recording-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.kgr")
    if what.keep is not None:
        ring = Ring(what.keep, what.keep_size or _MEMORY, _AFTER_SECONDS, what.files or _FILES)
        return RecordingOptions(path, ring=ring, trigger=trigger, is_all=True)
    rotates = what.rotate_size is not None or what.rotate_every is not None
    rotation = Rotation(what.rotate_size, what.rotate_every, what.files) if rotates else None
    return RecordingOptions(path, rotation, is_all=True)


def _gadgets(purpose: str) -> tuple[tuple[GadgetRun, ...], tuple[str, ...]]:
    """The gadgets of a set, and the command that shows its recording. Note: nothing is shown, so what a replay will
    want must be in the set: flows and processes have the parameters with which `replay FILE flows` and `observe` run
    them."""
    from kubectl_gadget.flows.run import FlowGadgets

    if purpose in (_BEHAVIOR, _SYSCALLS):
        from kubectl_gadget.behavior.run import behavior_runs

        found = behavior_runs(purpose == _SYSCALLS)
        return found, ("trace", "+".join(run.gadget.command[-1] for run in found))
    runs = [GadgetRun(gadgets.load_gadget(name)) for name in _SETS[purpose]]
    if purpose == "incident":
        runs += [GadgetRun(gadgets.load_gadget(name), dict(values)) for name, values in _PARAMETERS.items()]
    # Processes are the last of these: what closes at the end of a process comes before that end.
    flows = FlowGadgets(drops=purpose != "security", processes=True).runs()
    if purpose not in _WITH_FLOWS:
        flows = tuple(run for run in flows if run.gadget.name in ("trace_dns", "trace_process"))
    known = {run.gadget.name: run for run in (*runs, *flows)}
    names = "+".join(run.gadget.command[-1] for run in known.values())
    return tuple(known.values()), ("flows",) if purpose == "network" else ("trace", names)


# `replay`: any command that shows rows, on recordings instead of nodes

T = TypeVar("T")

_NOT_HERE = ("demo", "behavior", "ci", "list", "bcc", "bpftrace", "policy", "replay", "record", "recording", "run")
_INSTEAD = {
    **{"ci": "kubectl gadget ci judge FILE", "behavior": "kubectl gadget behavior show FILE"},
    **{
        "policy": "kubectl gadget replay FILE observe",
        "recording": "kubectl gadget recording --help",
    },
}
_OWN = ("--since", "--until", "--speed", "--step")


Since = Annotated[
    Moment | None,
    flag(SHOW, "--since TIME", "Start at this time: 10m before its end, or 2026-05-01T10:00:00Z"),
    values.moment,
    TypedOnly.SELECTION,
]
Until = Annotated[Moment | None, flag(SHOW, "--until TIME", "End at this time"), values.moment, TypedOnly.SELECTION]
Speed = Annotated[
    float | None,
    flag(SHOW, "--speed N", "1: as fast as it happened, 10: ten times that (default: as fast as possible)"),
    values.factor,
    TypedOnly.SELECTION,
]
Step = Annotated[
    Text, flag(SHOW, "--step NAME", "Only this step of a CI run; recording info lists them"), TypedOnly.SELECTION
]


def replay_group(entries: Mapping[str, Entry]) -> GadgetGroup:
    """Return `kubectl gadget replay`, with the root's `entries` that show rows."""
    here = {name: entry for name, entry in entries.items() if entry.section == "Gadgets" and name not in _NOT_HERE}
    return make_group(
        {"since": Since, "until": Until, "speed": Speed, "step": Step},
        "replay",
        GroupParts(partial(page_of, "replay"), here, kind=ReplayGroup),
    )


class ReplayGroup(GadgetGroup):
    """Runs a sub-command on recordings; without one, the command that was recorded. Files come before the command, so
    a file with the name of a command must be written as ./NAME."""

    takes_files = True

    def parse(self, ctx: typer.Context, words: list[str]) -> None:
        """Accepts the group's own flags anywhere, including after the files."""
        own, rest = _own_flags(words)
        super().parse(ctx, [*own, *rest])

    def execute(self, ctx: typer.Context) -> int:
        files, words = self._files(ctx.args)
        if not files:
            if ctx.args or any(item.name in ("since", "until", "speed", "step") for item in own_level(ctx)):
                raise UsageError("no recording was given", "kubectl gadget replay FILE")
            return super().execute(ctx)
        for word in files:
            if word in _NOT_HERE and not os.path.exists(word):
                raise UsageError(f"kubectl gadget {word} cannot be replayed", _INSTEAD.get(word))
        if not words or words[0].startswith("-"):
            words = [*_recorded_command(files[0]), *words]
        ctx.args = words
        given = {item.name: item.value for item in own_level(ctx)}
        from kubectl_gadget.recording.places import places_of

        asked = Replay(
            tuple(places_of(files)),
            _read(values.moment, "--since", given.get("since")),
            _read(values.moment, "--until", given.get("until")),
            _read(values.factor, "--speed", given.get("speed")),
            _read(values.some_text, "--step", given.get("step")),
        )
        with _replaying(asked):
            return super().execute(ctx)

    def _files(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        known = self.entries
        for place, word in enumerate(words):
            if word in known or word.startswith("-"):
                return list(words[:place]), list(words[place:])
        return list(words), []

    def after_files(self, words: Sequence[str]) -> list[str]:
        return self._files(words)[1]

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `replay FILE trace open` for `replay FILE open`."""
        return unknown_gadget(name, path) or super().unknown(name, path)


def _own_flags(args: Sequence[str]) -> tuple[list[str], list[str]]:
    own, rest = list[str](), list[str]()
    left = iter(args)
    for word in left:
        name, equals, _ = word.partition("=")
        if name not in _OWN:
            rest.append(word)
            continue
        own.append(word)
        if not equals:
            value = next(left, None)
            if value is None:  # otherwise it would take the first of `rest`, a file
                raise UsageError(f"flag {word} needs a value", "kubectl gadget replay --help")
            own.append(value)
    return own, rest


def _read(reader: Callable[[str], T], name: str, text: str | bool | None) -> T | None:
    if text is None:
        return None
    try:
        return reader(str(text))
    except ValueError as error:
        raise UsageError(f"{name} {text!r}: {error}") from None


def _recorded_command(file: str) -> Sequence[str]:
    from kubectl_gadget.recording.places import places_of
    from kubectl_gadget.recording.reader import RecordingReader
    from kubectl_gadget.recording.recorded_run import RecordedRun

    with RecordingReader(places_of([file])[0]) as reader:
        return RecordedRun.from_meta(reader.meta, file).command


@contextmanager
def _replaying(asked: Replay) -> Iterator[None]:
    before = replaying.set(asked)
    try:
        yield
    finally:
        replaying.reset(before)


# `recording info` describes a file written by --record

InfoFormat = Annotated[Text, format_flag(REPORTS)]
Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE")]


def info(files: Files, output: InfoFormat = None) -> int:
    from kubectl_gadget.recording.places import places_of
    from kubectl_gadget.recording.replay_run import read_info

    if not files:
        raise UsageError("no recording was given", "kubectl gadget recording info FILE")
    whole = True
    for place in places_of(files):
        file, found = str(place), read_info(place)
        whole = whole and found.is_whole
        if output == "json":
            sys.stdout.write(json.dumps({"file": file, **found.to_json()}) + "\n")
        else:
            _print(file, found)
    return 0 if whole else 1


def _print(file: str, found: "RecordingInfo") -> None:
    run, pods = found.run, [f"{namespace}/{name}" for namespace, name in sorted(found.pods)]
    lines = [
        f"{file}: {' '.join(run.command)}, recorded by version {run.version}",
        f"  when     {_time_of(found.end.began_ns)}, for {found.end.seconds:.1f} s",
        f"  what     {run.selection}" + (f", --filter {run.filter!r}" if run.filter else ""),
        *(f"  gadget   {item.gadget.name}: {count(found.events[item.gadget.name], 'event')}" for item in run.gadgets),
        *(f"  node     {name}: {count(events, 'event')}" for name, events in found.nodes.items()),
        f"  pods     {len(pods)}{': ' if pods else ''}{', '.join(pods[:5])}{', …' if len(pods) > 5 else ''}",
        *(f"  step     {mark.name}, from {_time_of(mark.wall_ns)}" for mark in found.steps),
        f"  size     {count(found.bytes, 'byte')} in {count(found.segments, 'segment')}",
        f"  missing  {', '.join(_missing(found)) or 'nothing'}",
    ]
    sys.stdout.writelines(escape(line) + "\n" for line in lines)


def _time_of(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "an impossible time"


def _missing(found: "RecordingInfo") -> Iterator[str]:
    yield from found.doubts
    if found.gap_seconds and found.end.coverage is None:
        yield f"{found.gap_seconds:.1f} s while nodes could not be reached"
    if found.damaged_segments:
        yield f"damaged segments: {found.damaged_segments}"
    if found.unreadable:
        yield f"{count(found.unreadable, 'frame')} that cannot be read"
    if found.dropped_bytes:
        yield f"{found.dropped_bytes:,} bytes of events, since the disk or object store was too slow"
    if not found.has_end:
        yield "its end: the client was killed, or the disk was full"


# `recording redact` copies a recording without what others must not see

Rules = Annotated[Text, flag(ENGINE, "--rules FILE", "Rules in YAML (default: the built-in ones)"), str]
Secret = Annotated[Text, flag(ENGINE, "--secret-file FILE", "The secret of all hashes, at least 16 bytes"), str]
_LEAST_SECRET, _MOST_SECRET = 16, 1 << 20


def redact(files: Files, output: InfoFormat = None, rules: Rules = None, secret: Secret = None) -> int:
    if len(files) != 2:
        raise UsageError("a recording and a name for its copy are needed", "kubectl gadget recording redact FILE COPY")
    from kubectl_gadget.analysis.redact import redact
    from kubectl_gadget.analysis.redaction_rules import Redactor, read_rules
    from kubectl_gadget.recording.places import place_of

    source, destination = place_of(files[0]), Path(files[1])
    redactor = Redactor(read_rules(rules or "default"), _secret(secret))
    try:
        handle = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise UsageError(f"{destination} exists", "another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{destination}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            found = redact(source, stream, redactor)
    except BaseException as error:
        with suppress(OSError):
            destination.unlink()
        if isinstance(error, OSError):
            raise GadgetError(f"{destination} cannot be written: {error.strerror or error}") from None
        raise
    return _report(found, redactor, output)


def _secret(path: str | None) -> bytes:
    if path is None:
        return os.urandom(32)
    try:
        with open(path, "rb") as stream:
            read = stream.read(_MOST_SECRET + 1)
    except OSError as error:
        raise UsageError(f"--secret-file {path}: {error.strerror}") from None
    if len(read) > _MOST_SECRET:  # /dev/urandom has no end, and another secret each time
        raise UsageError(f"--secret-file {path} has more than {_MOST_SECRET:,} bytes", "head -c 32 /dev/urandom > FILE")
    if len(found := read.strip()) < _LEAST_SECRET:
        raise UsageError(f"--secret-file {path} has fewer than {_LEAST_SECRET} bytes", "head -c 32 /dev/urandom > FILE")
    return found


def _report(found: "Redaction", redactor: "Redactor", output: str | None) -> int:
    counts = sorted(redactor.counts.items())
    if output == "json":
        rows = [{"rule": rule, "where": where, "count": times} for (rule, where), times in counts]
        record = {"taken": rows, "left_out": found.left_out, "damaged_segments": found.damage.segments}
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        print_table(("RULE", "WHERE", "COUNT"), [(rule, where, f"{times:,}") for (rule, where), times in counts])
    if found.left_out:
        sys.stderr.write(f"{found.left_out:,} records that cannot be read were left out\n")
    if found.damage.segments or found.damage.is_cut:
        sys.stderr.write("damaged segments were left out\n")
    return 0


# `recording query`: SQL over recordings

_EXAMPLE = 'kubectl gadget recording query FILE "SHOW TABLES"'
QueryFormat = Annotated[Text, format_flag(QUERIES)]
Memory = Annotated[
    int | None, flag(ENGINE, "--memory SIZE", "Use at most this, and then disk: 4GiB (default: 1GiB)"), values.size
]
Outside = Annotated[
    Switch, flag(ENGINE, "--allow-files", "Let SQL reach other files and the network"), TypedOnly.RIGHTS
]
_LEAST_MEMORY, _MOST_MEMORY = 64 << 20, 1 << 40


def query(files: Files, output: QueryFormat = None, memory: Memory = None, outside: Outside = None) -> int:
    sources, sql = _divided(files)
    if memory is not None and not _LEAST_MEMORY <= memory <= _MOST_MEMORY:
        raise UsageError("--memory must be between 64Mi and 1024Gi")
    from kubectl_gadget.analysis.queries import opened, print_answer

    with opened(sources, sys.stderr, memory=memory or 1 << 30, outside=bool(outside)) as queries:
        for answer in queries.ask(sql):
            print_answer(answer, output or QUERIES.default, sys.stdout)
    return 0


def _divided(words: tuple[str, ...]) -> "tuple[list[PathOrUrl], str]":
    """Return the sources, and the SQL, which is the last word."""
    from kubectl_gadget.recording.places import places_of

    if not words:
        raise UsageError("no recording was given", _EXAMPLE)
    last = words[-1]
    is_sql = len(words) > 1 and any(character.isspace() for character in last) and not _exists(last)
    sources = places_of(words[:-1] if is_sql else words)
    for source in sources:
        if isinstance(source, Path) and not _exists(str(source)):
            raise UsageError(f"{source}: No such file or directory")
    if not is_sql:
        raise UsageError("no SQL was given", _EXAMPLE)
    return sources, last


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # too long for a name
        return False


# `recording convert` makes files of other formats

ConvertFormat = Annotated[Text, format_flag(CONVERSIONS)]


def convert(files: Files, output: ConvertFormat = None, since: Since = None, until: Until = None) -> int:
    if len(files) < 2:
        raise UsageError("a recording and a destination are needed", "kubectl gadget recording convert FILE DIRECTORY")
    from kubectl_gadget.analysis import conversion
    from kubectl_gadget.recording.places import places_of

    sources, destination, format = places_of(files[:-1]), Path(files[-1]), output or CONVERSIONS.default
    span = (since, until)
    if format in conversion.ONE_FILE:
        return conversion.to_one_file(sources, format, destination, sys.stderr, span)
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file, and -o {format} writes a directory", "another name")
    if format in conversion.FILE_PER_GADGET:
        return conversion.to_files(sources, format, destination, sys.stderr, span)
    code, rows = conversion.to_parquet(sources, destination, sys.stderr, span)
    for table, made in rows.items():
        sys.stderr.write(f"  {table}: {count(made, 'row')}\n")
    return code


# `report` makes a page of recordings

ReportFile = Annotated[
    Text, flag(SHOW, "--output, -o FILE", "The page, or with FILE.json what it shows (default: RECORDING.html)")
]
Open = Annotated[Switch, flag(SHOW, "--open", "Open the page in the browser"), TypedOnly.ACTION]


def report(
    files: Files, output: ReportFile = None, open_page: Open = None, since: Since = None, until: Until = None
) -> int:
    if not files:
        raise UsageError("no recording was given", "kubectl gadget report FILE")
    from kubectl_gadget.recording.places import places_of

    sources = places_of(files)
    path = output or f"{Path(files[0].rpartition('/')[2] or 'report').stem}.html"
    if open_page and not path.endswith(".html"):
        raise UsageError(f"--open is for a page, and -o {path} is none", "-o FILE.html")
    run.write_page(Replay(tuple(sources), since, until), path)
    if open_page and not run.open_in_browser(Path(path).absolute().as_uri()):
        say(f"no browser was found; open {path} in one")
    return 0
