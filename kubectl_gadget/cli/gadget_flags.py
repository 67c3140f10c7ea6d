"""The flags that a gadget's YAML describes: its own parameters, and how its tables are sorted, cut and aggregated.

Columns are checked against the gadget in run/preparation.py, before anything is started, as with --columns.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, TextIO

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags import Count, Names, Seconds, Switch, Text, TypedOnly, flag
from kubectl_gadget.cli.help import OWN_FLAGS
from kubectl_gadget.cli.run_flags import RunFlags
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import TABLES, Gadget, Parameter
from kubectl_gadget.output.registry import PROFILES
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.run.run_options import RunOptions

# Tables: flags of gadgets that are not streams

TABLE = "Table"
_MOST_STACKS = 30
"""Default maximum of rows in a table of call stacks: there may be thousands, and the last ones matter least."""
_SEND_SECONDS = 5.0
"""Interval in which agents send their part of a profile that is shown at the end, in seconds."""
_NEVER_SECONDS = 1e9
"""Replaces _SEND_SECONDS if parts cannot be added up."""
_TABLE_PREFIX = "table_"
"""The prefix of flags' names; the rest is the name of a field of Arrangement, or `once`."""


def arrangement_flags(gadget: Gadget) -> dict[str, object]:
    """The flags that this gadget has, by name, as taken by command.bind()."""
    if gadget.kind not in TABLES:
        return {}
    default = f" (default: {gadget.table.sort})" if gadget.table.sort else ""
    sort = f"Sort by columns; -NAME: highest first{default}"
    rows = "Show at most this many rows" + (f" (default: {_MOST_STACKS})" if gadget.totals.weight else "")
    found: dict[str, object] = {
        "table_sort": Annotated[Names, flag(TABLE, "--sort NAMES", sort)],
        "table_max_rows": Annotated[Count, flag(TABLE, "--max-rows N", rows)],
    }
    if gadget.kind in ("top", "profile"):
        each = "one, at the end" if gadget.kind == "profile" else "1s"
        of = f" (default: {','.join(gadget.table.by)})" if gadget.table.by else ""
        by = f"Aggregate rows by these columns: node,pod{of}"
        found["table_by"] = Annotated[Names, flag(TABLE, "--by NAMES", by)]
        found["table_interval"] = Annotated[
            Seconds, flag(TABLE, "--interval TIME", f"Time between tables (default: {each})")
        ]
    if gadget.kind == "top":
        once = "Print one table, after one interval or --timeout"
        found["table_once"] = Annotated[Switch, flag(TABLE, "--once", once)]
    if gadget.totals.histogram:
        bars = "Draw this many histograms as bars (default: 3)"
        found["table_bars"] = Annotated[int | None, flag(TABLE, "--bars N", bars), values.zero_or_more]
    if gadget.totals.weight:
        flames = "Write a flame graph, .html or .svg; see also -o folded"
        found["table_flame_graph"] = _file_flag("--flame-graph FILE", flames)
        names = "Take missing names from this folder or debuginfod URL"
        found["table_debuginfo"] = Annotated[Text, flag(TABLE, "--debuginfo PLACE", names), values.debuginfo]
        found["table_diff"] = _file_flag("--diff FILE", "Color it by the difference from this -o folded file")
    if gadget.totals.histogram:
        found["table_diff"] = _file_flag("--diff FILE", "Compare with this recording, made with -o json")
    if gadget.table.tree:
        found["table_tree"] = Annotated[Switch, flag(TABLE, "--tree", "Show processes below their parents")]
    return found


def _file_flag(shown: str, help: str) -> object:
    return Annotated[Text, flag(TABLE, shown, help)]


def arranged(options: RunOptions, given: Mapping[str, object]) -> RunOptions:
    """The run's options with the given values that are about its tables."""
    flags = {name.removeprefix(_TABLE_PREFIX): value for name, value in given.items() if name.startswith(_TABLE_PREFIX)}
    once = bool(flags.pop("once", False))
    found = _arrangement(options, flags, once)
    timeout = options.timeout or (found.interval if once and options.replay is None else None)
    return replace(options, arrangement=found, timeout=timeout)


def _arrangement(options: RunOptions, flags: dict[str, object], once: bool) -> Arrangement:
    gadget, format = options.gadgets[0].gadget, options.output.format
    _refuse_contradictions(gadget, flags, format)
    at_end, is_table = once or (gadget.kind == "profile" and "interval" not in flags), format in ("table", "wide")
    if at_end and gadget.kind == "profile":
        flags["interval"] = _NEVER_SECONDS if gadget.totals.gauge else _SEND_SECONDS
    usual: dict[str, object] = {
        "by": gadget.table.by,
        "max_rows": _MOST_STACKS if gadget.totals.weight and is_table else None,
    }
    make: Callable[..., Arrangement] = Arrangement
    return make(**{**usual, **flags}, lines=is_table, at_end=at_end)


def _refuse_contradictions(gadget: Gadget, flags: Mapping[str, object], format: str) -> None:
    flame_graph = flags.get("flame_graph")
    if flags.get("by") and (format in PROFILES or flame_graph):
        what = "--flame-graph" if flame_graph else f"-o {format}"
        raise UsageError(f"{what} needs whole call stacks, and --by aggregates them away", "use only one of them")
    if flags.get("diff") and not flame_graph and not gadget.totals.histogram:
        raise UsageError("--diff needs a flame graph", "--flame-graph FILE.html")


# Parameters: one flag for each, with the reader for its type

_PARAMETER_PREFIX = "parameter_"
_WHY_TYPED_ONLY = {
    **dict.fromkeys(("pid", "descendants", "function", "receiver-pid"), TypedOnly.SELECTION),
    "target": TypedOnly.ACTION,
}
"""The reasons why settings cannot set a parameter, by name."""
_TEXT_TYPES: dict[str, tuple[str, Callable[[str], str]]] = {
    "syscalls": ("LIST", values.syscalls),
    "functions": ("LIST", values.functions),
    "address": ("IP", values.ip),
    "pcap": ("EXPRESSION", values.pcap),
    "paths": ("PATHS", values.paths),
}
"""The value's name in help and its reader, by type."""


def parameter_flags(gadget: Gadget) -> dict[str, object]:
    """The flags of all parameters, by name, as taken by command.bind()."""
    panel = OWN_FLAGS + " ".join(gadget.command)
    return {parameter_key(item): _parameter_flag(item, gadget, panel) for item in gadget.parameters}


def parameter_key(parameter: Parameter) -> str:
    """Return the name of the parameter's flag among the command's flags."""
    return _PARAMETER_PREFIX + parameter.name.replace("-", "_")


def parameter_values(given: dict[str, object]) -> dict[str, object]:
    """The given values that belong to parameters, by Parameter.name."""
    return {
        name.removeprefix(_PARAMETER_PREFIX).replace("_", "-"): value
        for name, value in given.items()
        if name.startswith(_PARAMETER_PREFIX)
    }


def functions_parameter(gadget: Gadget) -> Parameter | None:
    """The parameter that selects the functions to follow."""
    return parameter_of_type(gadget, "functions")


def parameter_of_type(gadget: Gadget, type: str) -> Parameter | None:
    return next((item for item in gadget.parameters if item.type == type), None)


def _parameter_flag(parameter: Parameter, gadget: Gadget, panel: str) -> object:
    metavar, reader, choices = _value_of(parameter, gadget)
    negative = f"/--no-{parameter.name}" if parameter.type == "bool" else ""
    option = flag(panel, f"--{parameter.name}{negative} {metavar or ''}".strip(), _help(parameter), choices)
    declared: object = Annotated[Switch, option] if reader is None else Annotated[Text, option, reader]
    why = _WHY_TYPED_ONLY.get(parameter.name)
    return Annotated[declared, why] if why else declared


def _help(parameter: Parameter) -> str:
    described = parameter.description[:1].upper() + parameter.description[1:]
    default = parameter.default
    if default in (None, False, ""):
        return described
    shown = values.duration_text(int(default), parameter.unit) if parameter.unit else default
    return f"{described} (default: {shown})"


Choices = Sequence[str] | Callable[[], Sequence[str]]


def _value_of(parameter: Parameter, gadget: Gadget) -> tuple[str | None, Callable[[str], object] | None, Choices]:
    """The value's name in help, None for a switch; its reader; its candidates for completion. Note: a number must fit
    the BPF program's variable that it is written to."""
    if parameter.type == "bool":
        return None, None, ()
    if parameter.type in _TEXT_TYPES:
        return *_TEXT_TYPES[parameter.type], ()
    if parameter.words:
        return "WORDS", values.words_of(parameter.words), ("all", *parameter.words)
    if parameter.choices:
        return "WORD", values.one_of(*parameter.choices), parameter.choices
    words = [choice.when[1] for choice in gadget.agent.programs if choice.when and choice.when[0] == parameter.name]
    if words:
        return "NAMES", values.words_of(words), ("all", *words)
    if parameter.names:
        return "NAME", values.number_of(parameter.names), partial(values.names_of, parameter.names)
    place = gadget.agent.globals.get(parameter.variable)
    if parameter.type == "duration":
        read = values.duration_in(parameter.unit, place.size if place else 4)
        return "TIME", _bounded(read, parameter, lambda value: values.duration_text(value, parameter.unit)), ()
    if parameter.type == "int":
        read = values.integer_of(place.size, signed=place.signed) if place else values.integer_of(8)
        return "N", _bounded(read, parameter, str), ()
    return "TEXT", values.text_of(place.size if place else 256), ()


def _bounded(read: Callable[[str], int], parameter: Parameter, spell: Callable[[int], str]) -> Callable[[str], int]:
    """The reader, which then also rejects what is beyond the parameter's bounds."""
    lowest, highest = parameter.minimum, parameter.maximum
    if lowest is None and highest is None:
        return read

    def reader(text: str) -> int:
        value = read(text)
        if lowest is not None and value < lowest:
            raise ValueError(f"must be at least {spell(lowest)}")
        if highest is not None and value > highest:
            raise ValueError(f"must be at most {spell(highest)}")
        return value

    return reader


# tcpdump's own flags, for gadgets that take its expressions

WRITE, INTERFACE = "packets_write", "packets_interface"
_PACKETS = "tcpdump's flags"
_NAMES_OFF = re.compile(r"n{1,2}(i|v+)?|nS|neS?")
"""The values that -n gets when it is written as for tcpdump: -nn, -nni any."""


def packet_flags() -> dict[str, object]:
    """-w and -i, by name, as taken by command.bind()."""
    write = "Write packets to this file, which Wireshark and tcpdump read (pcap-ng); -: standard output"
    interface = "any: packets of all interfaces, as always"
    return {
        WRITE: Annotated[Text, flag(_PACKETS, "--write, -w FILE", write), TypedOnly.ACTION],
        INTERFACE: Annotated[Text, flag(_PACKETS, "--interface, -i NAME", interface), _any_interface, TypedOnly.ACTION],
    }


def _any_interface(text: str) -> str:
    if text != "any":
        raise UsageError(
            f"the interface {text!r} cannot be chosen: packets are captured at sockets, on all interfaces of the pods",
            "-i any, and an expression such as `host 10.0.0.1`",
        )
    return text


def refuse_tcpdumps_meaning(flags: RunFlags) -> None:
    """Raises UsageError for a flag that means something else to tcpdump, with a value that shows this."""
    from kubectl_gadget.filters.pcap_filter import begins_expression

    namespace, containers = flags.scope.namespace, flags.target.containers or ()
    if namespace is not None and (begins_expression(namespace) or _NAMES_OFF.fullmatch(namespace)):
        raise UsageError(
            f"-n {namespace}: -n is the namespace of pods; unlike tcpdump, no names are looked up for addresses",
            "without -n",
        )
    for name in containers:
        if name.isdecimal():
            raise UsageError(f"-c {name}: -c is the name of a container", f"--max-events {name}")


@contextmanager
def packet_file(path: str, flags: RunFlags) -> Iterator[tuple[TextIO, RunFlags]]:
    """Open the file for -w; yields it with flags that choose its format. Raises UsageError."""
    if flags.output.output not in (None, "pcap-ng"):
        raise UsageError(f"-w and -o {flags.output.output} cannot be used together", "-w FILE")
    flags = replace(flags, output=replace(flags.output, output="pcap-ng"))
    if path == "-":
        yield sys.stdout, flags
        return
    try:
        file = open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"-w {path}: {error.strerror}") from None
    with file:
        yield file, flags
