"""The run that a recording holds, and a replay's options, built from it and from the user's input.

A parameter of a gadget takes effect where events happen. If it only selects rows and was not given to the run, a filter
of the replay does the same; any other one that the run did not have is refused rather than ignored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubectl_gadget.errors import FrameError, GadgetError, UsageError
from kubectl_gadget.filters.filter import Filter, compile_filter
from kubectl_gadget.gadgets.schema import Gadget, Parameter, check
from kubectl_gadget.output.escape import escape
from kubectl_gadget.recording.reader import LastRecords, RecordingReader
from kubectl_gadget.recording.recorded_frames import number
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.message import Message

_POLICY = "policy"
_LAST_NS = 1 << 62
"""Any later time is of a damaged or hostile file, and no calendar has it."""


@dataclass(frozen=True)
class RecordedGadget:
    """One gadget of the run, as the recording program knew it."""

    gadget: Gadget
    parameters: Mapping[str, Any]

    @property
    def is_traced(self) -> bool:
        """Return True for rows of events, but not of policies."""
        return self.gadget.kind == "stream" and self.gadget.name != _POLICY


@dataclass(frozen=True)
class RecordedRun:
    """META of a recording, parsed and checked."""

    command: tuple[str, ...]
    gadgets: tuple[RecordedGadget, ...]
    interval: float
    by_labels: bool
    filter: str | None
    selection: str
    version: str
    began_ns: int
    """wall time, within what can be shown"""
    local: bool = True
    """a run on one machine, without a cluster"""
    objects: bool = False
    """the cluster's objects are in it"""
    host: bool = False
    """processes of the nodes are in it"""
    typed: tuple[str, ...] = ()
    """the command that recorded it"""

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], name: str) -> "RecordedRun":
        """Parses META. Raises UsageError that names the file when META does not follow docs/recording.md."""
        try:
            gadgets = tuple(
                RecordedGadget(_gadget(item["description"], name), dict(item["parameters"])) for item in meta["gadgets"]
            )
            if not gadgets:
                raise ValueError("no gadgets")
            interval = number(meta["interval"])
            if interval is None:
                raise ValueError(f"the interval is {meta['interval']!r}")
            return cls(
                command := tuple(map(str, meta["command"])),
                gadgets,
                interval,
                bool(meta.get("by_labels")),
                None if meta.get("filter") is None else str(meta["filter"]),
                escape(str(meta.get("selection", ""))),
                escape(str(meta.get("version", "unknown"))),
                max(0, min(int(meta.get("began_ns", 0)), _LAST_NS)),
                bool(meta.get("local", True)),
                bool(meta.get("objects")),
                bool(meta.get("host")),
                tuple(map(str, meta.get("typed") or ())) or command,
            )
        except UsageError:
            raise
        except (AttributeError, GadgetError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise UsageError(f"{name}: its description of gadgets cannot be read: {error}") from None

    def places(self, runs: Sequence[GadgetRun]) -> dict[int, int]:
        """Maps a gadget's number in the recording to its number in these runs."""
        names = [run.gadget.name for run in runs]
        return {
            number: names.index(item.gadget.name)
            for number, item in enumerate(self.gadgets)
            if item.gadget.name in names
        }


def applied(options: RunOptions, recorded: RecordedRun) -> tuple[RunOptions, list[str]]:
    """Returns the replay's options with the gadgets as recorded, and messages for the user. Raises UsageError."""
    by_name = {item.gadget.name: item for item in recorded.gadgets}
    is_recipe = options.transform is not None or options.make_sink is not None
    notes: list[str] = []
    asked = [run.gadget.name for run in options.gadgets]
    runs = []
    missing = []
    for run in options.gadgets:
        if (item := by_name.get(run.gadget.name)) is not None:
            runs.append(_narrowed(run, item, is_recipe, notes))
        elif not is_recipe and (found := _contained(run, by_name, asked, notes)) is not None:
            runs.append(found)
        else:
            missing.append(" ".join(run.gadget.command))
    if missing and (not is_recipe or len(missing) == len(options.gadgets)):
        raise UsageError(
            f"the recording has no events of {', '.join(missing)}",
            f"one of those that it has: {', '.join(' '.join(item.gadget.command) for item in recorded.gadgets)}",
        )
    if missing:
        notes.append(f"not in the recording, so not shown: {', '.join(missing)}")
    if recorded.filter is not None and recorded.filter != options.filter:
        notes.append(f"it was recorded with --filter {recorded.filter!r}, so other rows may be missing")
    if is_recipe and not (recorded.local or recorded.objects):
        notes.append(
            "it has no services, workloads or labels, which only the API server knows; --objects FILE supplies them"
        )
    arrangement = replace(options.arrangement, interval=recorded.interval)
    addresses = None if recorded.local else options.addresses  # a run without a cluster names no addresses
    return replace(options, gadgets=tuple(runs), arrangement=arrangement, addresses=addresses), notes


def _narrowed(run: GadgetRun, item: RecordedGadget, is_recipe: bool, notes: list[str]) -> GadgetRun:
    """Return the run of a recorded gadget. Flags that only select rows are applied to what was recorded without them.
    Raises UsageError for other flags whose value differs from the recorded one, which a recipe only notes."""
    defaults = {parameter.name: parameter.default for parameter in run.gadget.parameters}
    texts, refused, filled = list[str](), list[str](), set[str]()
    command = " ".join(run.gadget.command)
    for name, value in run.parameters.items():
        usual = defaults.get(name)
        known = item.parameters.get(name, usual)
        if known == value:
            continue
        parameter = next((parameter for parameter in run.gadget.parameters if parameter.name == name), None)
        rows = _rows_of(parameter, value, item.gadget) if parameter and known in (usual, None, False) else None
        if parameter is None or rows is None or is_recipe:
            refused.append(f"--{name}")
            continue
        texts.append(rows)
        filled.update(parameter.shows)
        if parameter.lacks:
            notes.append(f"{command} --{name}: the recording lacks {parameter.lacks}")
    if refused:
        what = f"{command} was recorded with another value of {', '.join(sorted(refused))}"
        if not is_recipe:
            raise UsageError(f"{what}, and this cannot be changed in a replay", "--filter, which selects rows")
        notes.append(what)
    columns = tuple(replace(item, show="default") if item.name in filled else item for item in item.gadget.columns)
    return replace(
        run,
        gadget=replace(item.gadget, columns=columns),
        parameters=dict(item.parameters),
        directory=None,
        tables=None,
        only=_filter(texts, item.gadget, command),
    )


def _contained(
    run: GadgetRun, by_name: Mapping[str, RecordedGadget], asked: list[str], notes: list[str]
) -> GadgetRun | None:
    """Return the run of a gadget whose rows were recorded by another one; None: they were not. Raises UsageError
    for flags that need what was not recorded, and if the other one is shown already."""
    within = run.gadget.within
    item = by_name.get(within.gadget) if within else None
    if within is None or item is None:
        return None
    command, other = " ".join(run.gadget.command), " ".join(item.gadget.command)
    if within.gadget in asked:
        raise UsageError(f"{command} was not recorded, and {other} is shown by another gadget of this replay", other)
    asked.append(within.gadget)
    texts = [f"({within.rows})"]
    for name, value in run.parameters.items():
        parameter = next(parameter for parameter in run.gadget.parameters if parameter.name == name)
        if (rows := _rows_of(parameter, value, item.gadget)) is None:
            raise UsageError(
                f"{command} --{name} needs what the recording of {other} does not have",
                "--filter, which selects rows",
            )
        texts.append(rows)
    of_item = {column.name: column for column in item.gadget.columns}
    columns = tuple(
        replace(column, field=of_item[column.name].field) for column in run.gadget.columns if column.name in of_item
    )
    notes.append(f"{command} is shown from {other}, which lacks {within.lacks}")
    gadget = replace(item.gadget, command=run.gadget.command, about=run.gadget.about, columns=columns)
    only = _filter(texts, item.gadget, command)
    return GadgetRun(gadget, dict(item.parameters), again_seconds=run.again_seconds, only=only)


def _rows_of(parameter: Parameter, value: object, recorded: Gadget) -> str | None:
    """Return the filter (CEL) that selects the rows that a parameter lets through; None if rows cannot tell. Empty: all
    of them."""
    columns = {column.name for column in recorded.columns}
    if value == parameter.default or value is None or value is False:
        return ""
    literal = json.dumps(value)
    if parameter.type == "address":
        ends = [field.name for field in recorded.record.fields if field.type == "gadget_ip" and field.name in columns]
        text = " || ".join(f"{name} == {literal}" for name in ends)
    elif parameter.test == "equal":
        text = f"{parameter.column} == {literal}"
    elif parameter.test == "prefix":
        text = f"{parameter.column}.startsWith({literal})"
    else:
        text = parameter.rows.replace("VALUE", literal)
    if not text:
        return None
    try:
        compile_filter(text, [recorded])
    except UsageError:
        return None
    return f"({text})"


def _filter(texts: Sequence[str], recorded: Gadget, command: str) -> Filter | None:
    text = " && ".join(filter(None, texts))
    return compile_filter(text, [recorded], command) if text else None


def _gadget(description: Any, name: str) -> Gadget:
    gadget = Gadget.from_json(description)
    check(gadget, name)
    return gadget


# How a CI run ended, as its recording keeps it for `ci judge` and `behavior save --from`

JOB = "job"
"""The member of END that holds it"""


class JobEnd(Message):
    """Facts that only the run itself knows."""

    where: str = ""
    """whose processes were traced, in words"""
    began_ns: int = 0
    """wall time at which everything was attached"""
    elapsed_ns: int = 0
    """until COMMAND had ended"""
    incomplete: tuple[str, ...] = ()
    """why events are missing that agents did not count as lost"""
    has_unnamed: bool = False
    """rows of containers without a name are rows like the others"""


@dataclass(frozen=True)
class RecordedEnd:
    """The times and the coverage of a recorded run. All commands read them here."""

    began_ns: int
    """wall time from which what happened counts: of a CI run, when COMMAND began; else when all nodes were attached"""
    seconds: float
    """from then until COMMAND, or the run, had ended"""
    coverage: Coverage | None
    """None: the recording does not have it"""
    job: JobEnd | None
    """None: it was no CI run"""
    why_none: str = ""
    """why there is no coverage"""


def recorded_end(reader: RecordingReader) -> RecordedEnd:
    """Read how the run of a recording ended. Needs no other part of the file. Raises UsageError."""
    found = reader.find_end()
    try:
        coverage = None if found.coverage is None else Coverage.from_json(found.coverage, "coverage")
        job = JobEnd.from_json(found.end[JOB], JOB) if JOB in found.end else None
    except FrameError as error:
        raise UsageError(f"{reader.path}: how the run ended cannot be read: {error}") from None
    if job is not None:
        return RecordedEnd(job.began_ns, job.elapsed_ns / 1e9, coverage, job, _why_none(found))
    if coverage is not None:
        return RecordedEnd(coverage.since_ns, coverage.seconds, coverage, None)
    headers = list(reader.segments())
    first, last = min(header.first_ns for header in headers), max(header.last_ns for header in headers)
    seconds = number(found.end.get("seconds"))
    return RecordedEnd(first, (last - first) / 1e9 if seconds is None else seconds, None, None, _why_none(found))


def _why_none(found: LastRecords) -> str:
    if found.coverage is not None:
        return ""
    if found.end.keys() & {"continues", "kept"}:
        return "the run went on after this file"
    return "an earlier version recorded it" if found.end else "its client was killed, or the disk was full"
