"""The request of a run to every node's agent: the RUN frame's gadgets, their BPF objects, and the command's
declaration.

Its one value is RunRequest. A plain run on this machine sends it before anything else of the run is imported.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.filters import pushdown
from kubectl_gadget.gadgets.schema import ARCHITECTURES, Gadget, Parameter
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.linux import syscalls
from kubectl_gadget.output.registry import ROWS
from kubectl_gadget.run import local_agent
from kubectl_gadget.run.live_tables import LiveTables
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.client_messages import (
    AnyGadget,
    FilterSpec,
    GadgetSpec,
    Layout,
    Library,
    ProgramChoice,
    RecorderSpec,
    Run,
    Variable,
)
from kubectl_gadget.wire.frames import FrameType, encode
from kubectl_gadget.wire.policy_messages import InstalledSpec
from kubectl_gadget.wire.session_command import SessionCommand, acts, declared_name, enforces


@dataclass(frozen=True)
class RunRequest:
    """The request to every node's agent."""

    gadgets: Sequence[AnyGadget]
    """the entries of RUN's `gadgets`"""
    object_bytes: Callable[[int, str], bytes]
    """(index of the gadget, architecture) → its BPF object. Raises GadgetError when there is none"""
    tables: Mapping[int, LiveTables] = field(default_factory=dict)
    """by the gadget's index, the tables to keep up to date"""
    rest_ms: int = 50
    """see Run"""
    _latest: dict[str, tuple[Run, bytes]] = field(default_factory=dict)
    """by architecture, what a node was asked last, and the frames: half a megabyte that is the same for most nodes"""

    def frames(self, gadgets: Sequence[AnyGadget], filter: FilterSpec, architecture: str) -> bytes:
        """Returns the frames OBJECT and RUN for one node. `gadgets` are those above, with what differs by node. Raises
        GadgetError."""
        run = Run(gadgets=tuple(gadgets), filter=filter, rest_ms=self.rest_ms)
        asked, frames = self._latest.get(architecture, (None, b""))
        if run != asked:
            objects = (
                encode(FrameType.OBJECT, self.object_bytes(index, architecture)) for index in range(len(self.gadgets))
            )
            frames = b"".join([*objects, encode(FrameType.RUN, run.to_bytes())])
            self._latest[architecture] = run, frames
        return frames


# From the user's options.


_RING_BYTES = {"snapshot": 4096, "top": 4096, "profile": 4096, "recorder": 65536}
"""Ring sizes in bytes of gadgets whose rows do not come through the ring."""
_OF_RESULTS = {("trace_syscalls", "unique"): ("failed", "min")}
"""By a parameter that shows calls when they begin: those that ask for their results"""


def of_run(options: RunOptions, pushed: Sequence[Mapping[str, object]]) -> RunRequest:
    """Builds a run's request. `pushed` as in build()."""
    interval = options.arrangement.interval
    request = build(options.gadgets, pushed, options.ring_bytes, interval, options.map_entries)
    return replace(request, rest_ms=options.rest_ms)


def build(
    runs: Sequence[GadgetRun],
    pushed: Sequence[Mapping[str, object]],
    ring_bytes: int,
    interval: float = 1.0,
    map_entries: int | None = None,
) -> RunRequest:
    """Builds RUN for these gadgets. `pushed` holds, for each, parameters (by name) that come from the filter.
    `interval` is the time between totals, in seconds; `map_entries` is the size of hashes, None: as each gadget
    declares."""
    sizes = (ring_bytes, map_entries or 0)
    entries = [_entry(index, run, pushed[index], sizes, interval) for index, run in enumerate(runs)]

    @cache  # because every node asks
    def object_bytes(index: int, architecture: str) -> bytes:
        if runs[index].installed:
            return b""
        return gadgets.object_bytes(runs[index].gadget.name, architecture, runs[index].directory)

    return RunRequest(entries, object_bytes, {index: run.tables for index, run in enumerate(runs) if run.tables})


def _entry(
    index: int, run: GadgetRun, pushed: Mapping[str, object], sizes: tuple[int, int], interval: float
) -> AnyGadget:
    gadget, (ring_bytes, map_entries) = run.gadget, sizes
    if run.installed:
        return InstalledSpec(name=gadget.name, kind="installed", object=index)
    if run.policies is not None:
        return run.policies.spec().replace(object=index, ring_bytes=ring_bytes)
    for (name, early), late in _OF_RESULTS.items():
        if name == gadget.name and run.parameters.get(early):
            for other in filter(run.parameters.get, late):
                raise UsageError(
                    f"--{early} and --{other} cannot be used together: a call has no result when it begins"
                )
    return GadgetSpec(
        name=gadget.name,
        own=bool(run.directory),
        object=index,
        programs=_programs(gadget, run.parameters),
        globals={name: Variable(offset=at.offset, size=at.size) for name, at in gadget.agent.globals.items()},
        parameters=_variables(gadget, {**pushed, **run.parameters}) | _triggers(run),
        ring_bytes=_RING_BYTES.get(gadget.kind, ring_bytes),
        map_entries=map_entries,
        libraries=_libraries(run),
        named=_functions_of(gadget) is not None,
        sampler=gadget.agent.sampler or "",
        layout=sampled_layout(gadget),
        **_answer(run, interval),
    )


def _triggers(run: GadgetRun) -> dict[str, bool]:
    """Returns the triggers that a recorder's programs detect themselves."""
    if run.gadget.kind != "recorder":
        return {}
    reasons = _reasons(run.gadget.values(run.parameters))
    return {f"gadget_recorder_on_{reason}": reason in reasons for reason in ("crash", "kill")}


def _programs(gadget: Gadget, given: Mapping[str, object]) -> tuple[ProgramChoice, ...]:
    """Returns the programs that these parameters ask for. A program that the user named is not optional."""
    values = gadget.values(given)
    return tuple(
        ProgramChoice(
            any_of=tuple(map(tuple, choice.any_of)),
            optional=choice.optional and not choice.is_named(given),
            purpose=choice.purpose,
            aside=choice.aside,
        )
        for choice in gadget.agent.programs
        if choice.is_wanted(values)
    )


def _functions_of(gadget: Gadget) -> Parameter | None:
    """Returns the parameter with which a user names functions; None when the gadget itself names them, or has none."""
    if not gadget.agent.libraries:
        return None
    return next((parameter for parameter in gadget.parameters if parameter.type == "functions"), None)


def _libraries(run: GadgetRun) -> tuple[Library, ...]:
    gadget = run.gadget
    if (named := _functions_of(gadget)) is not None:
        (programs,) = gadget.agent.libraries[0].functions.values()
        return _asked_for(run.parameters.get(named.name) or "", programs)
    return tuple(
        Library(files=tuple(item.files), functions={name: tuple(each) for name, each in item.functions.items()})
        for item in gadget.agent.libraries
    )


def _asked_for(text: str, programs: Sequence[str]) -> tuple[Library, ...]:
    """Parses libraries from comma-separated FILE:SYMBOL."""
    found = []
    for target in filter(None, text.split(",")):
        file, _, symbol = target.rpartition(":")
        found.append(Library(files=(file.removesuffix(":"),), functions={symbol: tuple(programs)}))
    if not found:
        raise UsageError("no function is named", "name some as FILE:SYMBOL, such as libc:getaddrinfo")
    return tuple(found)


def sampled_layout(gadget: Gadget) -> Layout | None:
    """Returns the layout of rows that the agent itself makes; None for gadgets whose rows all come from programs."""
    if not gadget.agent.sampler:
        return None
    from kubectl_gadget.gadgets.contained_gadgets import layout  # loads libcrypto, as few gadgets need

    return Layout.from_json(layout(gadget))


def _answer(run: GadgetRun, interval: float) -> dict[str, Any]:
    """Returns members that only some kinds of gadgets have."""
    gadget = run.gadget
    match gadget.kind:
        case "stream":
            return {}
        case "snapshot":
            return {"kind": gadget.kind, "interval_ms": round(run.again_seconds * 1000)}
        case "top" | "profile":
            # A profile is sent in parts, so that a lost node takes only its last part with it.
            answer = {"kind": "top", "interval_ms": round(interval * 1000), "record_bytes": gadget.record.size}
            # By function and not by offset in it, so that samples of one function are one row.
            return {**answer, "stack_offsets": False} if gadget.totals.weight else answer
    values = gadget.values(run.parameters)
    reasons = _reasons(values)
    return {
        "kind": gadget.kind,
        "recorder": RecorderSpec(
            last=values["last"],
            bytes=values["memory"] << 20,
            exit="exit" in reasons,
            end="end" in reasons,
            offset=gadget.record.field("because").offset,
        ),
    }


def _reasons(values: Mapping[str, Any]) -> set[str]:
    """Returns the reasons for which a recorder shows what it holds."""
    words = {word.strip() for word in values["on"].split(",")}
    return {"crash", "kill", "exit", "end"} if "all" in words else words


def _variables(gadget: Gadget, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by the BPF object's variable; a parameter without a value keeps its default."""
    found: dict[str, Any] = {}
    for parameter in gadget.parameters:
        value = values.get(parameter.name, parameter.default)
        if parameter.type == "syscalls":
            found.update(_tables(parameter, value))
        elif parameter.type == "address" and value:
            found[parameter.variable] = packed_address(value)
        elif parameter.type == "pcap" and value:
            from kubectl_gadget.filters import pcap_filter  # needs ctypes, which takes 4 ms

            found[parameter.variable] = pcap_filter.compile_filter(value)
        elif parameter.type == "paths" and value:
            found[parameter.variable] = pushdown.table(pushdown.read_paths(value))
        elif parameter.variable and value is not None:
            found[parameter.variable] = value
    return found


def packed_address(text: str) -> bytes:
    """Returns an IP address as records store it. Raises ValueError."""
    address = ip_address(text)
    return (b"\0" * 10 + b"\xff\xff" if address.version == 4 else b"") + address.packed


def _tables(parameter: Parameter, wanted: str | None) -> dict[str, object]:
    """Returns tables for each architecture, since the one where the gadget will run is not known yet."""
    calls = syscalls.select(wanted) if wanted else None
    tables = [syscalls.kernel_table(architecture, calls) for architecture in ARCHITECTURES]
    return dict(zip(parameter.variables, tables, strict=True))


# What each agent's command line declares about a run: for the API server's audit log, and for contained agents.
# The agent compares it with what RUN asks for, so both are built from the same entries.


def declared(options: RunOptions, namespace: str | None) -> SessionCommand:
    """Returns the declaration of this run. `namespace` is the only one whose containers it covers; None: any."""

    request = build(options.gadgets, [{} for _ in options.gadgets], options.ring_bytes)
    names = tuple(sorted(declared_name(spec) for spec in request.gadgets))
    only = None if options.selection.host else namespace
    found = any(_enforces(request, index) for index in range(len(request.gadgets)))
    return SessionCommand(names, found, namespace=only)


def _enforces(request: RunRequest, index: int) -> bool:
    """True if a gadget could do more than observe on a node of any architecture."""
    spec = request.gadgets[index]
    if not isinstance(spec, GadgetSpec) or not spec.own:
        return enforces(spec)
    return any(acts(spec, elf) for machine in ARCHITECTURES if (elf := _object(request, index, machine)))


def _object(request: RunRequest, index: int, machine: str) -> bytes | None:
    try:
        return request.object_bytes(index, machine)
    except GadgetError:
        return None  # it was not built for such nodes, and cannot run there


# This machine's agent. Nothing may be requested before all of the user's input was checked, which needs numpy in
# many runs; and this is imported before asyncio and numpy, which take longer than reading the command line.


def ask_early(options: RunOptions) -> None:
    """Sends the run's request to this machine's agent, if the run is there and early_request() has one. Raises
    UsageError."""
    if options.local and sys.platform == "linux" and (request := early_request(options)) is not None:
        local_agent.ask(request.frames(request.gadgets, local_filter(options.selection), os.uname().machine))


def early_request(options: RunOptions) -> RunRequest | None:
    """Returns the request of a run in which nothing but the request itself is to be checked. So agents may attach while
    numpy is imported. None: they have to wait (preparation.py). Raises UsageError."""
    output, arrangement = options.output, options.arrangement
    is_plain = (
        output.format in ROWS.plain
        and not output.columns
        and not any((arrangement.by, arrangement.sort, arrangement.tree, arrangement.diff, arrangement.flame_graph))
        and (options.filter, options.fail_on, options.expect) == (None, None, None)
        and (options.make_sink, options.transform, options.record, options.beforehand) == (None, None, None, None)
        and not options.services
        and all(map(_only_observes, options.gadgets))
    )
    return of_run(options, [{} for _ in options.gadgets]) if is_plain else None


def _only_observes(run: GadgetRun) -> bool:
    is_own = run.directory is not None
    return run.gadget.kind == "stream" and run.policies is None and not (run.installed or run.tables or is_own)


def local_filter(selection: Selection) -> FilterSpec:
    """Returns FILTER for one machine: without -n, every container, also those that Kubernetes did not create."""
    return FilterSpec(
        namespaces=(selection.namespace,) if selection.namespace and not selection.all_namespaces else None,
        pods=tuple(selection.pods) or None,
        containers=tuple(selection.containers) or None,
        host=selection.host,
        own_processes=selection.own_processes,
    )
