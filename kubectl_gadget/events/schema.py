"""A gadget as the client sees it: what people read of it, its record's layout, its columns, its parameters.

This is what a gadget's YAML says (catalogue/description.py), with what only its object's BTF knows: layouts and
globals. The build writes it as kubectl_gadget/built/gadgets/NAME.json, whose format is this module. The trap: nothing
heavy may be imported here, since `--help` reads it too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.typed import make

ARCHITECTURES = ("x86_64", "aarch64")
"""Of nodes, as uname says it."""

Answer = Literal["stream", "top", "snapshot", "profile", "recorder"]
"""What a gadget's answer is: events as they come, sums of an interval, what is there now, sums of the whole run, or
what came before a crash."""

TABLES = frozenset({"top", "snapshot", "profile"})
"""Answers whose rows can be sorted, added up and cut off."""

HISTOGRAM_SUMS = ("count", "total", "buckets")
HISTOGRAM_MAXIMA = ("max",)
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
"""Fields of every histogram: what adds up, of what the highest counts, and what the client fills in."""

NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
"""Of the units that a parameter can count a duration in."""

Show = Literal["default", "wide", "json"]
"""Where a column is shown: in every table, with -o wide, or only for machines (whose formats have all)."""


IDENTITY_COLUMNS = ("node", "namespace", "pod", "container", "image", "container_id", "pod_uid", "runtime")
"""Columns that come from the identity (events/identity.py) and not from the record; `Column.field` names them."""


def owner_source(field: str) -> tuple[str, str] | None:
    """Whose name a Column.field asks for, and which of IDENTITY_COLUMNS; None when it is a field of the record.

    "pod" is ("cgroup", "pod"); a record that names a second party in its gadget_cgroup field `receiver` has
    "receiver.pod", which is ("receiver", "pod").
    """
    party, _, name = field.rpartition(".")
    return (party or "cgroup", name) if name in IDENTITY_COLUMNS else None


@dataclass(frozen=True)
class Field:
    """One member of the record's C struct."""

    name: str
    offset: int
    """in bytes, from the record's start (after the ring buffer's own 8 bytes)"""
    size: int
    """in bytes, of the whole member"""
    type: str
    """the outermost typedef or base type: gadget_errno, gadget_string, __u32, …"""
    signed: bool = False
    values: tuple[tuple[int, str], ...] = ()
    """of an enum: its numbers and their names"""
    flags: tuple[tuple[int, str], ...] = ()
    """of a set of flags: the bits of each, and its name"""


@dataclass(frozen=True)
class Record:
    """Layout of the fixed part of a record; strings follow it."""

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
    """One column. `field` is a field of the record, or node, namespace, pod, container, … (see IDENTITY_COLUMNS), or
    one of these of a second party: receiver.pod, where `receiver` is a gadget_cgroup of the record."""

    name: str
    """lower case; the name in JSON, in filters and in -o custom-columns"""
    title: str
    field: str
    description: str
    show: Show = "default"
    width: int = 10
    """of a table's column, before it is fitted to the terminal"""
    align: Literal["left", "right"] = "left"
    stretch: bool = False
    """takes what the terminal has left over, and gives way first (paths, arguments)"""


@dataclass(frozen=True)
class Parameter:
    """One option of a gadget's command, which sets a global of the BPF object before it is loaded."""

    name: str
    """the option without its dashes"""
    type: Literal["bool", "int", "string", "syscalls", "pcap", "address", "functions", "paths", "duration"]
    """syscalls: a list of system calls; VARIABLE_x86_64 and VARIABLE_aarch64 get the tables of syscall_table.py. pcap:
    an expression as tcpdump has them; the variable gets its instructions (pcap_filter.py). functions: FILE:SYMBOL with
    commas; where the uprobe programs of a library without files go. paths: absolute
    ones with commas; the variable gets their tails (path_tails.py). duration: a whole number of its `unit`"""
    description: str
    variable: str
    """name of the `const volatile` global; empty: the gadget's view reads it"""
    default: bool | int | str | None = None
    """None: the global keeps the value that the C source gives it"""
    column: str | None = None
    """the column that this parameter tests, so that --filter can be pushed down to it"""
    test: Literal["equal", "prefix"] | None = None
    """how the column is tested"""
    names: Literal["", "signal", "capability", "errno"] = ""
    """of an int: what it numbers, so that it may be given by its name as well"""
    words: tuple[str, ...] = ()
    """of a string: some of these, comma-separated"""
    choices: tuple[str, ...] = ()
    """of a string: it is one of these"""
    unit: str = ""
    """of a duration: one of NANOSECONDS, which a number without a unit counts, too"""

    shows: tuple[str, ...] = ()
    """of a bool: columns that tables show when it is true, as it is what fills them"""

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the BPF object that it sets."""
        if self.type == "syscalls":
            return tuple(f"{self.variable}_{architecture}" for architecture in ARCHITECTURES)
        return (self.variable,) if self.variable else ()


@dataclass(frozen=True)
class Global:
    """Place of a `const volatile` global in the object's .rodata, in bytes."""

    offset: int
    size: int
    signed: bool = False
    """a number that may be negative"""


@dataclass(frozen=True)
class ProgramChoice:
    """Sets of programs that do the same, best first; the agent loads the first set that the kernel accepts."""

    any_of: tuple[tuple[str, ...], ...]
    optional: bool = False
    purpose: str = ""
    """what is missing without it, in the words of a warning"""
    aside: bool = False
    """what is missing is of little weight, so that only -v says it"""
    when: tuple[str, str] | None = None
    """a parameter and a word: only when the word, or "all", is among those of the parameter, comma-separated. Of a
    parameter that is a bool, the word is true"""

    def is_wanted(self, values: Mapping[str, Any]) -> bool:
        """Whether it is needed with these values of all parameters, by name."""
        return self.when is None or self.is_named(values) or "all" in self._words(values)

    def is_named(self, values: Mapping[str, Any]) -> bool:
        """Whether these values of parameters have its word."""
        return self.when is not None and self.when[1] in self._words(values)

    def _words(self, values: Mapping[str, Any]) -> list[str]:
        value = values.get(self.when[0]) if self.when else None
        text = "true" if value is True else str(value or "")
        return [word.strip() for word in text.split(",")]


@dataclass(frozen=True)
class Quotient:
    """A field of a total that the client fills in: `times` · `of` / `per`, in whole numbers.

    `per` is a field, too, such as the total's `interval`; where it is 0, so is the result.
    """

    field: str
    of: str
    per: str
    times: int = 1


@dataclass(frozen=True)
class Library:
    """Functions of files that processes map, and the uprobe programs for them."""

    files: tuple[str, ...]
    """how the files' names begin: libssl.so. A process's own program is looked at as well"""
    functions: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Example:
    """A command line, and what it is for."""

    command: str
    description: str


@dataclass(frozen=True)
class About:
    """What people read about a gadget before they run it."""

    group: str
    """files, processes, network, security, memory: how lists are ordered"""
    summary: str
    """one line, no full stop"""
    description: str = ""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class AgentSide:
    """What the agent loads and runs for a gadget."""

    programs: tuple[ProgramChoice, ...] = ()
    globals: dict[str, Global] = field(default_factory=dict)
    libraries: tuple[Library, ...] = ()
    """where the uprobe programs go"""
    sampler: str = ""
    """what of the agent reads rows from the node itself (agent/answers/samplers.py)"""


@dataclass(frozen=True)
class RowView:
    """What makes rows of what the programs send (views/stage.py)."""

    name: str
    sent: Record


@dataclass(frozen=True)
class TotalFields:
    """How the fields of a total add up. All empty for gadgets that have no totals."""

    sums: tuple[str, ...] = ()
    """fields that add up; the others are its key"""
    gauges: tuple[str, ...] = ()
    """those of the sums that say how much there is now: of several intervals of a node only the last one counts"""
    describes: tuple[str, ...] = ()
    """further fields that are not its key: what is known of what it is about"""
    quotients: tuple[Quotient, ...] = ()
    gauge: bool = False
    """sums are of what is there when an interval ends, so those of several intervals are not added up"""
    weight: str = ""
    """the sum that flame graphs are drawn by, of a gadget whose key has call stacks"""
    histogram: bool = False
    """totals are histograms (bpf/include/gadget/histogram.h), which have HISTOGRAM_MAXIMA and PERCENTILES, too"""

    @property
    def added_up(self) -> frozenset[str]:
        """Fields that rows get when totals are added up."""
        of_histogram = (*HISTOGRAM_MAXIMA, *PERCENTILES) if self.histogram else ()
        return frozenset((*self.sums, *(quotient.field for quotient in self.quotients), *of_histogram))


@dataclass(frozen=True)
class TableDefaults:
    """How tables show the rows unless flags say otherwise."""

    sort: str = ""
    """of tables that are not streams: the columns that rows are sorted by, comma-separated; - in front: the highest
    first"""
    by: tuple[str, ...] = ()
    """columns that rows are added up by; none: all of the key"""
    tree: bool = False
    """rows have parents among each other (pid, ppid)"""
    narrow: tuple[str, ...] = ()
    """columns that are left out on a narrow terminal, the first one first"""


@dataclass(frozen=True)
class Gadget:
    """All that the client knows about a gadget, except its BPF objects."""

    name: str
    """trace_open"""
    command: tuple[str, ...]
    """("trace", "open")"""
    about: About
    record: Record
    columns: tuple[Column, ...]
    agent: AgentSide = AgentSide()
    parameters: tuple[Parameter, ...] = ()
    kind: Answer = "stream"
    view: RowView | None = None
    """None: what the programs send are the rows"""
    totals: TotalFields = TotalFields()
    table: TableDefaults = TableDefaults()
    whole_nodes: bool = False
    """it is about all of each node, the node's own included, unless containers are chosen"""
    shows_contents: bool = False
    """it shows what is read, written or sent, in which passwords and tokens may be"""

    @property
    def event(self) -> str:
        """What its rows are called in a table of several gadgets: open."""
        return self.command[-1]

    @property
    def sent(self) -> Record | None:
        """What the programs send, when a view makes rows of it."""
        return self.view.sent if self.view else None

    def as_sent(self) -> "Gadget":
        """The gadget with the record that its programs send."""
        return self if self.view is None else replace(self, record=self.view.sent)

    def column(self, name: str) -> Column:
        """The column of that name. Raises UsageError that offers the nearest names."""
        for candidate in self.columns:
            if candidate.name == name:
                return candidate
        raise UsageError(
            f"{' '.join(self.command)} has no column {name!r}",
            f"one of {', '.join(column.name for column in self.columns)}",
        )

    def to_json(self) -> dict[str, Any]:
        """What the build writes; from_json(to_json()) is the same gadget."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Gadget":
        """Reads what to_json wrote. Raises TypeError that says what is not as it should be."""
        return make(cls, value)
