"""From what the user asked to what every node's agent is asked: the RUN frame's gadgets and their BPF objects.

The trap: a condition of --filter may be pushed into the kernel only when it never drops a row that the filter would
keep, and an option that the user gave always wins over it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget import catalogue
from kubectl_gadget.events import pcap_filter, syscall_table
from kubectl_gadget.events.batch import STRING_TYPES
from kubectl_gadget.events.schema import ARCHITECTURES, Gadget, Parameter
from kubectl_gadget.session.node import RunRequest
from kubectl_gadget.session.options import GadgetRun

_LEAST_RING_BYTES = 4096


def build(
    runs: Sequence[GadgetRun], pushed: Sequence[Mapping[str, Any]], ring_bytes: int, interval: float = 1.0
) -> RunRequest:
    """RUN for these gadgets; `pushed` holds, for each, parameters (by name) that come from the filter. `interval` is
    that of totals, in seconds."""
    entries = [_entry(index, run, pushed[index], ring_bytes, interval) for index, run in enumerate(runs)]

    def object_bytes(index: int, architecture: str) -> bytes:
        return catalogue.object_bytes(runs[index].gadget.name, architecture, runs[index].directory)

    return RunRequest(entries, object_bytes)


def _entry(index: int, run: GadgetRun, pushed: Mapping[str, Any], ring_bytes: int, interval: float) -> dict[str, Any]:
    gadget = run.gadget
    return {
        "name": gadget.name,
        "object": index,
        "programs": _programs(gadget, run.parameters),
        "globals": {name: {"offset": place.offset, "size": place.size} for name, place in gadget.globals.items()},
        "parameters": _variables(gadget, {**pushed, **run.parameters}),
        "ring_bytes": ring_bytes if gadget.kind == "stream" else _LEAST_RING_BYTES,
        **_answer(gadget, interval),
        **_libraries(gadget),
        **sampled(gadget),
    }


def _programs(gadget: Gadget, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that these parameters ask for. What the user asked for by its name is not optional."""
    values = {parameter.name: parameter.default for parameter in gadget.parameters} | dict(given)
    return [
        {
            "any_of": [list(programs) for programs in choice.any_of],
            "optional": choice.optional and not choice.is_named(given),
        }
        for choice in gadget.programs
        if choice.is_wanted(values)
    ]


def _libraries(gadget: Gadget) -> dict[str, Any]:
    if not gadget.libraries:
        return {}
    return {"libraries": [{"files": list(item.files), "functions": item.functions} for item in gadget.libraries]}


def sampled(gadget: Gadget) -> dict[str, Any]:
    """What the agent has to know to make rows itself; nothing for gadgets whose rows come from programs alone."""
    if not gadget.sampler:
        return {}
    fields = gadget.record.fields
    layout = {
        "size": gadget.record.size,
        "fields": {field.name: [field.offset, field.size] for field in fields},
        "texts": [field.name for field in fields if field.type in STRING_TYPES],
    }
    return {"sampler": gadget.sampler, "layout": layout}


def _answer(gadget: Gadget, interval: float) -> dict[str, Any]:
    if gadget.kind == "stream":
        return {}
    if gadget.kind == "snapshot":
        return {"kind": gadget.kind}
    # A profile is sent in parts, so that a node that is lost takes only its last one with it.
    answer = {"kind": "top", "interval_ms": round(interval * 1000), "record_bytes": gadget.record.size}
    # By function and not by place in it, so that samples of one function are one row.
    return {**answer, "stack_offsets": False} if gadget.weight else answer


def _variables(gadget: Gadget, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the BPF object's variable; a parameter without a value keeps its default."""
    found: dict[str, Any] = {}
    for parameter in gadget.parameters:
        value = values.get(parameter.name, parameter.default)
        if parameter.type == "syscalls":
            found.update(_tables(parameter, value))
        elif parameter.type == "pcap" and value:
            found[parameter.variable] = {"hex": pcap_filter.compile_filter(value).hex()}
        elif parameter.variable and value is not None:
            found[parameter.variable] = value
    return found


def _tables(parameter: Parameter, wanted: str | None) -> dict[str, str]:
    """For each architecture, since it is not known yet on which the gadget will run."""
    calls = syscall_table.select(wanted) if wanted else None
    tables = [syscall_table.kernel_table(architecture, calls) for architecture in ARCHITECTURES]
    return dict(zip(parameter.variables, tables, strict=True))
