"""Two gadgets as the catalogue would hand them out, for tests of the command line that need no build."""

from dataclasses import replace

from kubectl_gadget.gadgets import GadgetSummary
from kubectl_gadget.gadgets.schema import (
    About,
    AgentSide,
    Column,
    Example,
    Field,
    Gadget,
    Global,
    Parameter,
    ProgramChoice,
    RecordLayout,
)

_WHERE = tuple(
    Column(name, name.upper(), name, f"{name} of the process") for name in ("node", "namespace", "pod", "container")
)


def _field(offset: int, column: Column) -> Field:
    types = {"path": "gadget_string", "comm": "gadget_comm", "errno": "gadget_errno"}
    return Field(column.field, offset, 4, types.get(column.field, "__u32"))


def _gadget(verb: str, noun: str, columns: tuple[Column, ...], parameters: tuple[Parameter, ...]) -> Gadget:
    return Gadget(
        name=f"{verb}_{noun}",
        command=(verb, noun),
        about=About(
            "files",
            f"Show every {noun} as it happens",
            f"Shows every {noun}.\n\nWith its result.",
            (Example(f"kubectl gadget {verb} {noun}", f"each {noun} in this namespace"),),
        ),
        record=RecordLayout(
            f"{verb}_{noun}", 8 * len(columns), tuple(_field(8 * i, item) for i, item in enumerate(columns))
        ),
        columns=(*_WHERE, *columns),
        agent=AgentSide(
            (ProgramChoice((("exit",),)),),
            {item.variable: Global(8 * i, 16 if item.type == "string" else 4) for i, item in enumerate(parameters)},
        ),
        parameters=parameters,
    )


TRACE_OPEN = _gadget(
    "trace",
    "open",
    (
        Column("pid", "PID", "pid", "process id", width=7, align="right"),
        Column("comm", "COMM", "comm", "name of the program", width=16),
        Column("errno", "ERR", "errno", "why it failed"),
        Column("path", "PATH", "path", "as the program passed it", stretch=True),
        Column("uid", "UID", "uid", "user id", show="wide"),
        Column("flags_raw", "FLAGS_RAW", "flags", "flags as a number", show="json"),
    ),
    (
        Parameter("failed", "bool", "only opens that failed", "gadget_failed", False),
        Parameter("pid", "int", "only this process", "gadget_filter_pid", column="pid", test="equal"),
        Parameter("path", "string", "only paths that begin so", "gadget_filter_path", column="path", test="prefix"),
        Parameter("max-depth", "int", "how deep", "gadget_max_depth", 8, minimum=1, maximum=64),
    ),
)
TOP_FILE = replace(_gadget("top", "file", (Column("bytes", "BYTES", "bytes", "read and written"),), ()), kind="top")


GADGETS = {gadget.name: gadget for gadget in (TRACE_OPEN, TOP_FILE)}
INDEX = [GadgetSummary(item.name, item.command, item.about.group, item.about.summary) for item in GADGETS.values()]
