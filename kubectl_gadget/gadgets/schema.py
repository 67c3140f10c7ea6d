"""A gadget as the client sees it: its description, its record's layout, its columns, its parameters.

This is the content of a gadget's YAML (gadgets/gadget_yaml.py) plus what only its object's BTF has: layouts and
globals. The build writes it to kubectl_gadget/built/gadgets/NAME.json, whose format this module defines. This
module must import nothing heavy, since `--help` loads it too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.typed import make
from kubectl_gadget.yaml_files import Example

ARCHITECTURES = ("x86_64", "aarch64")
"""Architectures of nodes, as in uname."""

Answer = Literal["stream", "top", "snapshot", "profile", "recorder"]
"""The form of a gadget's answers: events as they come, totals of an interval, current objects, totals of the whole run,
or the events before a crash."""

TABLES = frozenset({"top", "snapshot", "profile"})
"""Answers whose rows can be sorted, aggregated and truncated."""

HISTOGRAM_SUMS = ("count", "total", "buckets")
HISTOGRAM_MAXIMA = ("max",)
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
"""Fields of every histogram: those that add up, those whose highest value counts, and those that the client
computes."""

NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
"""Units of durations that a parameter can have, in ns."""

Show = Literal["default", "wide", "json"]
"""The places where a column is shown: in all tables, with -o wide, or only in machine-readable formats, which have all
columns."""


UNKNOWN = (1 << 64) - 1
"""In a record: the number is unknown (bpf/include/gadget/record.h)."""

STRING_TYPES = frozenset(
    {"gadget_string", "gadget_strings", "gadget_path", "gadget_path_at", "gadget_data", "gadget_terminal_text"}
)
"""Typedefs whose member gives the text's position in the record: u16 offset, u16 length."""

IDENTITY_COLUMNS = ("node", "namespace", "pod", "container", "image", "container_id", "pod_uid", "runtime")
"""Columns that come from the identity (rows/containers.py), not from the record; `Column.field` names them."""


PEERS = {"remote": "local", "server": "client", "client": "server", "source": "destination", "destination": "source"}
"""Fields of type gadget_ip with the address of an end, which rows name (rows/peers.py); and of its other end."""


def is_peer(field: "Field") -> bool:
    """True if the field has the address of an end that rows name."""
    return field.type == "gadget_ip" and field.name in PEERS


def owner_source(field: str) -> tuple[str, str] | None:
    """The owner that a Column.field refers to, and one of IDENTITY_COLUMNS; None if it is a field of the record.

    "pod" is ("cgroup", "pod"). A record with a second party in its gadget_cgroup field `receiver` also has
    "receiver.pod", which is ("receiver", "pod").
    """
    party, _, name = field.rpartition(".")
    return (party or "cgroup", name) if name in IDENTITY_COLUMNS else None


@dataclass(frozen=True)
class Field:
    """One member of the record's C struct."""

    name: str
    offset: int
    """in bytes from the start of the record (after the ring buffer's own 8 bytes)"""
    size: int
    """in bytes, of the whole member"""
    type: str
    """the outermost typedef or base type: gadget_errno, gadget_string, __u32, …"""
    signed: bool = False
    values: tuple[tuple[int, str], ...] = ()
    """numbers of an enum and their names"""
    flags: tuple[tuple[int, str], ...] = ()
    """bits of each flag in a set of flags, and its name"""


@dataclass(frozen=True)
class RecordLayout:
    """Layout of the fixed part of a record; its strings follow."""

    struct: str
    size: int
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """The field of that name. Raises KeyError."""
        for candidate in self.fields:
            if candidate.name == name:
                return candidate
        raise KeyError(name)


@dataclass(frozen=True)
class Column:
    """One column. `field` is a field of the record, one of IDENTITY_COLUMNS (node, namespace, pod, container, …), or
    one of those for a second party: receiver.pod, where `receiver` is a gadget_cgroup of the record."""

    name: str
    """lower case; the name in JSON, in filters and in -o custom-columns"""
    title: str
    field: str
    description: str
    show: Show = "default"
    width: int = 10
    """width in tables, before they are fitted to the terminal"""
    align: Literal["left", "right"] = "left"
    stretch: bool = False
    """takes the remaining width of the terminal, and shrinks first (paths, arguments)"""


@dataclass(frozen=True)
class Parameter:
    """One option of a gadget's command; it sets a global of the BPF object before loading."""

    name: str
    """the option without its dashes"""
    type: Literal["bool", "int", "string", "syscalls", "pcap", "address", "functions", "paths", "duration"]
    """syscalls: a list of system calls; VARIABLE_x86_64 and VARIABLE_aarch64 get the tables of syscall_table.py. pcap:
    a tcpdump expression; the variable gets its instructions (pcap_filter.py). functions: comma-separated FILE:SYMBOL,
    the functions to probe where the YAML's library names no files. paths: comma-separated absolute paths; the
    variable gets their tails (path_tails.py). duration: a whole number of `unit`"""
    description: str
    variable: str
    """name of the `const volatile` global; empty: the gadget's view reads the value"""
    default: bool | int | str | None = None
    """None: the global keeps its value from the C source"""
    column: str | None = None
    """the column that this parameter tests, so that --filter can be pushed down"""
    test: Literal["equal", "prefix"] | None = None
    """how the column is tested"""
    names: Literal["", "signal", "capability", "errno"] = ""
    """for an int: the kind of number, so that it may also be given by name"""
    words: tuple[str, ...] = ()
    """for a string: it is a comma-separated list of these words"""
    choices: tuple[str, ...] = ()
    """for a string: it is one of these"""
    unit: str = ""
    """for a duration: one of NANOSECONDS; a number without a unit is in this unit"""
    minimum: int | None = None
    maximum: int | None = None
    """for an int or a duration: the lowest and the highest value; None: what the variable can hold"""
    shows: tuple[str, ...] = ()
    """for a bool: columns that tables show if it is true, because it fills them"""
    rows: str = ""
    """a filter (CEL) that selects the same rows, for replays of runs without it; VALUE is its value"""
    lacks: str = ""
    """what the recording of a run without it lacks, as worded in a warning"""

    @property
    def variables(self) -> tuple[str, ...]:
        """The BPF object's variables that this parameter sets."""
        if self.type == "syscalls":
            return tuple(f"{self.variable}_{architecture}" for architecture in ARCHITECTURES)
        return (self.variable,) if self.variable else ()


@dataclass(frozen=True)
class Global:
    """Position and size of a `const volatile` global in the object's .rodata, in bytes."""

    offset: int
    size: int
    signed: bool = False
    """True if it is a signed integer"""


@dataclass(frozen=True)
class ProgramChoice:
    """Alternative sets of programs, best first; the agent loads the first set that the kernel accepts."""

    any_of: tuple[tuple[str, ...], ...]
    optional: bool = False
    purpose: str = ""
    """what is missing without it, as worded in a warning"""
    aside: bool = False
    """what is missing matters little, so it is reported only with -v"""
    when: tuple[str, str] | None = None
    """a parameter and a word: wanted only if the word, or "all", is in the comma-separated value of the parameter. For
    a bool parameter the word is true. --errno implies --failed"""

    def is_wanted(self, values: Mapping[str, object]) -> bool:
        """True if the programs are needed, given the values of all parameters by name."""
        return self.when is None or self.is_named(values) or "all" in self._words(values)

    def is_named(self, values: Mapping[str, object]) -> bool:
        """True if the parameter's value contains the word of `when`."""
        return self.when is not None and self.when[1] in self._words(values)

    def _words(self, values: Mapping[str, object]) -> list[str]:
        value = values.get(self.when[0]) if self.when else None
        if self.when == ("failed", "true") and values.get("errno"):
            value = True
        text = "true" if value is True else str(value or "")
        return [word.strip() for word in text.split(",")]


@dataclass(frozen=True)
class Quotient:
    """A field of a total that the client computes: `times` · `of` / `per`, in whole numbers.

    `per` is also a field, such as the total's `interval`; if it is 0, so is the result.
    """

    field: str
    of: str
    per: str
    times: int = 1


@dataclass(frozen=True)
class Library:
    """Functions in files that processes map, and the uprobe programs for them."""

    files: tuple[str, ...]
    """prefixes of the files' names, such as libssl.so. A process's own program is searched as well"""
    functions: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class About:
    """A gadget's description in help and lists."""

    group: str
    """files, processes, network, security, memory: the order of lists"""
    summary: str
    """one line, no full stop"""
    description: str = ""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class AgentSide:
    """The objects and settings with which the agent runs a gadget."""

    programs: tuple[ProgramChoice, ...] = ()
    globals: dict[str, Global] = field(default_factory=dict)
    libraries: tuple[Library, ...] = ()
    """targets of the uprobe programs"""
    sampler: str = ""
    """the agent's sampler that reads rows from the node itself (agent/sources/samplers.py)"""


@dataclass(frozen=True)
class RowView:
    """The view that turns what the programs send into rows (rows/views.py)."""

    name: str
    sent: RecordLayout


@dataclass(frozen=True)
class TotalFields:
    """The aggregation of the fields of a total. All are empty for gadgets without totals."""

    sums: tuple[str, ...] = ()
    """fields that add up; the others are the key"""
    gauges: tuple[str, ...] = ()
    """the `sums` that are current amounts: of several intervals of a node, only the last one counts"""
    describes: tuple[str, ...] = ()
    """further fields that are not part of the key but describe its object"""
    quotients: tuple[Quotient, ...] = ()
    gauge: bool = False
    """sums are current amounts at the end of an interval, so several intervals are not added up"""
    weight: str = ""
    """the sum that gives the widths in flame graphs, for a gadget whose key has call stacks"""
    histogram: bool = False
    """totals are histograms (bpf/include/gadget/histogram.h), which also have HISTOGRAM_MAXIMA and PERCENTILES"""

    @property
    def added_up(self) -> frozenset[str]:
        """Fields that are computed when totals are added up."""
        of_histogram = (*HISTOGRAM_MAXIMA, *PERCENTILES) if self.histogram else ()
        return frozenset((*self.sums, *(quotient.field for quotient in self.quotients), *of_histogram))


@dataclass(frozen=True)
class TableDefaults:
    """The form in which tables show the rows by default."""

    sort: str = ""
    """for tables that are not streams: comma-separated columns to sort by; a leading - sorts in descending order"""
    by: tuple[str, ...] = ()
    """columns to aggregate by; empty: the whole key"""
    tree: bool = False
    """rows form a tree by parent (pid, ppid)"""
    narrow: tuple[str, ...] = ()
    """columns that are left out on a narrow terminal, in this order"""


@dataclass(frozen=True)
class Within:
    """Another gadget whose recording has the rows of this one."""

    gadget: str
    rows: str
    """the filter (CEL) that selects them"""
    lacks: str
    """what they lack, as worded in a warning"""


@dataclass(frozen=True)
class Gadget:
    """Everything that the client knows about a gadget, except its BPF objects."""

    name: str
    """trace_open"""
    command: tuple[str, ...]
    """("trace", "open")"""
    about: About
    record: RecordLayout
    columns: tuple[Column, ...]
    agent: AgentSide = AgentSide()
    parameters: tuple[Parameter, ...] = ()
    kind: Answer = "stream"
    view: RowView | None = None
    """None: the programs send the rows themselves"""
    totals: TotalFields = TotalFields()
    table: TableDefaults = TableDefaults()
    whole_nodes: bool = False
    """covers the whole of each node, including the node's own processes, unless containers are selected"""
    shows_contents: bool = False
    """shows data that is read, written or sent, which may contain passwords and tokens"""
    within: Within | None = None
    """replays take its rows from there if it was not recorded itself"""

    @property
    def event(self) -> str:
        """The name of its rows in a table of several gadgets: open."""
        return self.command[-1]

    @property
    def sent(self) -> RecordLayout | None:
        """The record that the programs send, if a view turns it into rows."""
        return self.view.sent if self.view else None

    def as_sent(self) -> "Gadget":
        """The gadget with the record that its programs send."""
        return self if self.view is None else replace(self, record=self.view.sent)

    def values(self, given: Mapping[str, object]) -> dict[str, Any]:
        """The values of all parameters by name, with the defaults of those that are not given."""
        return {parameter.name: parameter.default for parameter in self.parameters} | dict(given)

    def column(self, name: str) -> Column:
        """The column of that name. Raises UsageError, which offers the nearest names."""
        for candidate in self.columns:
            if candidate.name == name:
                return candidate
        raise UsageError(
            f"{' '.join(self.command)} has no column {name!r}",
            f"one of {', '.join(column.name for column in self.columns)}",
        )

    def to_json(self) -> dict[str, object]:
        """The JSON that the build writes; from_json(to_json()) is an equal gadget."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Gadget":
        """Reads the JSON of to_json(). Raises TypeError with the place and reason if it is malformed."""
        return make(cls, value)


# Checks that a gadget is consistent: columns and fields, sums, parameters and variables. A build checks its result;
# loading checks gadgets that were built elsewhere, or damaged. Types alone do not say whether a column can be read,
# since a typedef may have any size: rows/members.py tries every column of a user's own gadget.


_MOST_BYTES = 1 << 16
"""The limit for a record's size: texts in it are found by 16-bit offsets."""
_WIDEST = 1000
_DEFAULTS: dict[str, type] = {"bool": bool, "int": int, "duration": int}
"""The Python types of parameters whose values are not texts."""


def check(gadget: Gadget, source: str) -> None:
    """Raises UsageError, which names `source` and the inconsistency."""
    for record in (gadget.record, *([gadget.sent] if gadget.sent else [])):
        _check_record(record, source)
    if not gadget.command or not all(gadget.command):
        raise UsageError(f"{source}: the command is empty")
    names = [column.name for column in gadget.columns]
    words = [*names, *(parameter.name.replace("-", "_") for parameter in gadget.parameters)]
    if wrong := [word for word in words if not word.isascii() or not word.isidentifier()]:
        raise UsageError(f"{source}: {wrong[0]!r} is not a valid name for a column or a parameter")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{source}: column {twice[0]} is defined twice")
    for column in gadget.columns:
        if not 1 <= column.width <= _WIDEST:
            raise UsageError(f"{source}: invalid width {column.width} of column {column.name}: expected 1 to {_WIDEST}")
    _check_columns(gadget, source)
    _check_totals(gadget, source)
    _check_parameters(gadget, source)


def _check_record(record: RecordLayout, source: str) -> None:
    if not 0 < record.size < _MOST_BYTES:
        raise UsageError(f"{source}: struct {record.struct} has {record.size} bytes: expected 1 to {_MOST_BYTES - 1}")
    for item in record.fields:
        if item.size <= 0 or not 0 <= item.offset <= record.size - item.size:
            raise UsageError(
                f"{source}: field {item.name} lies outside of struct {record.struct}:"
                f" {item.size} bytes at {item.offset} of {record.size}"
            )
        if (item.values or item.flags) and (item.size not in (1, 2, 4, 8) or item.type.startswith("char")):
            raise UsageError(f"{source}: field {item.name} has names of values or flags, but is not a number")


def field_of(column: Column) -> str:
    """The field of the record that a column shows."""
    source = owner_source(column.field)
    return source[0] if source else column.field


def _check_columns(gadget: Gadget, source: str) -> None:
    fields = {field.name for field in gadget.record.fields}
    for column in gadget.columns:
        if field_of(column) not in fields:
            raise UsageError(
                f"{source}: column {column.name} shows {column.field}, which is not a field of struct "
                f"{gadget.record.struct}",
                f"one of {', '.join(sorted(fields))}",
            )


def _check_totals(gadget: Gadget, source: str) -> None:
    fields = {field.name for field in gadget.record.fields}
    of_quotients = (name for item in gadget.totals.quotients for name in (item.field, item.of, item.per))
    wanted = {*gadget.totals.sums, *gadget.totals.describes, *of_quotients}
    if missing := sorted(wanted - fields):
        raise UsageError(f"{source}: sums or quotients name {', '.join(missing)}, which is not a field")
    if gadget.totals.weight and gadget.totals.weight not in gadget.totals.sums:
        raise UsageError(f"{source}: weight names {gadget.totals.weight}, which is not among the sums")
    if wrong := sorted(set(gadget.totals.gauges) - set(gadget.totals.sums)):
        raise UsageError(f"{source}: gauges names {wrong[0]}, which is not among the sums")
    names = {column.name for column in gadget.columns}
    for key, wanted_columns in (
        ("sort", gadget.table.sort.replace("-", "").split(",")),
        ("by", gadget.table.by),
        ("narrow", gadget.table.narrow),
    ):
        if wrong := [name for name in wanted_columns if name and name not in names]:
            raise UsageError(f"{source}: {key} names {wrong[0]}, which is not a column")


def _check_parameters(gadget: Gadget, source: str) -> None:
    parameters = {parameter.name for parameter in gadget.parameters}
    for choice in gadget.agent.programs:
        if choice.when and choice.when[0] not in parameters:
            raise UsageError(f"{source}: `when` of programs names {choice.when[0]}, which is not a parameter")
    columns = {column.name for column in gadget.columns}
    for parameter in gadget.parameters:
        if wrong := [name for name in parameter.shows if name not in columns]:
            raise UsageError(f"{source}: parameter {parameter.name} shows {wrong[0]}, which is not a column")
        if parameter.variable and not gadget.agent.globals.keys() >= set(parameter.variables):
            raise UsageError(
                f"{source}: parameter {parameter.name} sets {parameter.variable}, which the C code does not define",
                f"one of {', '.join(sorted(gadget.agent.globals))}",
            )
        if parameter.type in ("int", "duration") and parameter.variable:
            size = gadget.agent.globals[parameter.variable].size
            if size not in (1, 2, 4, 8):
                raise UsageError(
                    f"{source}: {parameter.variable} has {size} bytes, which is not the size of an integer"
                )
        wanted = _DEFAULTS.get(parameter.type, str)
        if parameter.default is not None and type(parameter.default) is not wanted:
            raise UsageError(
                f"{source}: parameter {parameter.name} has the default {parameter.default!r}, which is not of its type"
            )
        if (parameter.type == "duration") != (parameter.unit in NANOSECONDS):
            raise UsageError(
                f"{source}: parameter {parameter.name} has the unit {parameter.unit!r}, which does not fit its type"
            )
