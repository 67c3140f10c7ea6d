"""From what the user asked to what every node's agent is asked: the RUN frame's gadgets and their BPF objects.

The trap: a condition of --filter may be pushed into the kernel only when it never drops a row that the filter would
keep, and an option that the user gave always wins over it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import ip_address
from typing import Any

from kubectl_gadget import catalogue
from kubectl_gadget.catalogue.contained import layout
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.filters import path_tails, pcap_filter
from kubectl_gadget.events.linux import syscall_table
from kubectl_gadget.events.schema import ARCHITECTURES, Gadget, Parameter
from kubectl_gadget.session.options import GadgetRun
from kubectl_gadget.session.run_request import RunRequest

_RING_BYTES = {"snapshot": 4096, "top": 4096, "profile": 4096, "recorder": 65536}
"""Of gadgets whose rows do not come through the ring."""


def build(
    runs: Sequence[GadgetRun],
    pushed: Sequence[Mapping[str, Any]],
    ring_bytes: int,
    interval: float = 1.0,
    map_entries: int | None = None,
) -> RunRequest:
    """RUN for these gadgets; `pushed` holds, for each, parameters (by name) that come from the filter. `interval` is
    that of totals, in seconds; `map_entries` the room of hashes, None: as each gadget has it."""
    maps = {} if map_entries is None else {"map_entries": map_entries}
    entries = [_entry(index, run, pushed[index], ring_bytes, interval) | maps for index, run in enumerate(runs)]

    @cache  # since every node asks
    def object_bytes(index: int, architecture: str) -> bytes:
        if runs[index].installed:
            return b""
        return catalogue.object_bytes(runs[index].gadget.name, architecture, runs[index].directory)

    return RunRequest(entries, object_bytes, {index: run.tables for index, run in enumerate(runs) if run.tables})


def _entry(index: int, run: GadgetRun, pushed: Mapping[str, Any], ring_bytes: int, interval: float) -> dict[str, Any]:
    gadget = run.gadget
    if run.installed:
        return {"name": gadget.name, "kind": "installed", "object": index}
    if run.policies is not None:
        return {"index": index, "object": index, "ring_bytes": ring_bytes, **run.policies.spec()}
    return {
        "name": gadget.name,
        **({"own": True} if run.directory else {}),
        "object": index,
        "programs": _programs(gadget, run.parameters),
        "globals": {name: {"offset": place.offset, "size": place.size} for name, place in gadget.agent.globals.items()},
        "parameters": _variables(gadget, {**pushed, **run.parameters}) | _triggers(run),
        "ring_bytes": _RING_BYTES.get(gadget.kind, ring_bytes),
        **_answer(run, interval),
        **_libraries(run),
        **sampled(gadget),
    }


def _triggers(run: GadgetRun) -> dict[str, bool]:
    """What the programs of a recorder look out for themselves."""
    if run.gadget.kind != "recorder":
        return {}
    reasons = _reasons(_values(run))
    return {f"gadget_recorder_on_{reason}": reason in reasons for reason in ("crash", "kill")}


def _programs(gadget: Gadget, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that these parameters ask for. What the user asked for by its name is not optional."""
    values = {parameter.name: parameter.default for parameter in gadget.parameters} | dict(given)
    return [
        {
            "any_of": [list(programs) for programs in choice.any_of],
            "optional": choice.optional and not choice.is_named(given),
            "purpose": choice.purpose,
            **({"aside": True} if choice.aside else {}),
        }
        for choice in gadget.agent.programs
        if choice.is_wanted(values)
    ]


def _libraries(run: GadgetRun) -> dict[str, Any]:
    gadget = run.gadget
    if not gadget.agent.libraries:
        return {}
    for parameter in gadget.parameters:
        if parameter.type == "functions":
            (programs,) = gadget.agent.libraries[0].functions.values()
            return {"libraries": _asked_for(run.parameters.get(parameter.name) or "", programs), "named": True}
    return {"libraries": [{"files": list(item.files), "functions": item.functions} for item in gadget.agent.libraries]}


def _asked_for(text: str, programs: Sequence[str]) -> list[dict[str, Any]]:
    """Libraries, of FILE:SYMBOL with commas."""
    found = []
    for target in filter(None, text.split(",")):
        file, _, symbol = target.rpartition(":")
        found.append({"files": [file.removesuffix(":")], "functions": {symbol: list(programs)}})
    if not found:
        raise UsageError("no function is named", "name some as FILE:SYMBOL, such as libc:getaddrinfo")
    return found


def sampled(gadget: Gadget) -> dict[str, Any]:
    """What the agent has to know to make rows itself; nothing for gadgets whose rows come from programs alone."""
    if not gadget.agent.sampler:
        return {}
    return {"sampler": gadget.agent.sampler, "layout": layout(gadget)}


def _answer(run: GadgetRun, interval: float) -> dict[str, Any]:
    gadget = run.gadget
    match gadget.kind:
        case "stream":
            return {}
        case "snapshot":
            return {"kind": gadget.kind}
        case "top" | "profile":
            # A profile is sent in parts, so that a node that is lost takes only its last one with it.
            answer = {"kind": "top", "interval_ms": round(interval * 1000), "record_bytes": gadget.record.size}
            # By function and not by place in it, so that samples of one function are one row.
            return {**answer, "stack_offsets": False} if gadget.totals.weight else answer
    values = _values(run)
    reasons = _reasons(values)
    return {
        "kind": gadget.kind,
        "recorder": {
            "last": values["last"],
            "bytes": values["memory"] << 20,
            "exit": "exit" in reasons,
            "end": "end" in reasons,
            "offset": gadget.record.field("because").offset,
        },
    }


def _values(run: GadgetRun) -> dict[str, Any]:
    """Of all parameters, by name."""
    return {parameter.name: parameter.default for parameter in run.gadget.parameters} | dict(run.parameters)


def _reasons(values: Mapping[str, Any]) -> set[str]:
    """Why a recorder shows what it has."""
    words = {word.strip() for word in values["on"].split(",")}
    return {"crash", "kill", "exit", "end"} if "all" in words else words


def _variables(gadget: Gadget, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the BPF object's variable; a parameter without a value keeps its default."""
    found: dict[str, Any] = {}
    for parameter in gadget.parameters:
        value = values.get(parameter.name, parameter.default)
        if parameter.type == "syscalls":
            found.update(_tables(parameter, value))
        elif parameter.type == "address" and value:
            found[parameter.variable] = {"hex": packed_address(value).hex()}
        elif parameter.type == "pcap" and value:
            found[parameter.variable] = {"hex": pcap_filter.compile_filter(value).hex()}
        elif parameter.type == "paths" and value:
            found[parameter.variable] = {"hex": path_tails.table(path_tails.read_paths(value)).hex()}
        elif parameter.variable and value is not None:
            found[parameter.variable] = value
    return found


def packed_address(text: str) -> bytes:
    """An IP address as records have it. Raises ValueError."""
    address = ip_address(text)
    return (b"\0" * 10 + b"\xff\xff" if address.version == 4 else b"") + address.packed


def _tables(parameter: Parameter, wanted: str | None) -> dict[str, str]:
    """For each architecture, since it is not known yet on which the gadget will run."""
    calls = syscall_table.select(wanted) if wanted else None
    tables = [syscall_table.kernel_table(architecture, calls) for architecture in ARCHITECTURES]
    return dict(zip(parameter.variables, tables, strict=True))
