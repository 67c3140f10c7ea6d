"""RUN: makes the sources that a client requests, in the order of its `gadgets`.

The traps: the kernel's verifier may take long, and nothing else of the session runs meanwhile. And a
kind's modules are imported only when RUN requests it, to save memory.
"""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module

from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.sources.gadget_programs import OWN_PROCESSES
from kubectl_gadget.agent.sources.source import NodeContext, Source
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import AnyGadget, FilterSpec, GadgetSpec

_CLASSES = {
    "stream": ("sources.stream", "StreamSource"),
    "snapshot": ("sources.snapshot", "SnapshotSource"),
    "top": ("sources.top", "TopSource"),
    "recorder": ("sources.recorder", "RecorderSource"),
    "policy": ("policies.policy_source", "PolicySource"),
    "installed": ("installed.feed", "InstalledSource"),
}
KINDS = tuple(_CLASSES)
"""The kinds that HELLO offers."""
_PACKETS = "packet_sent"
"""The program that every gadget for packets has."""


def node_context(filter: FilterSpec, containers: Containers) -> NodeContext:
    """Returns the context that all sources of a session share. `filter` is RUN's."""
    variables = {"gadget_node_random": int.from_bytes(os.urandom(8), "little")}
    context = NodeContext(containers, containers.wants, variables, _own_processes(filter))
    context.callbacks.each_turn.append(context.maps.turn)
    return context


def make_sources(specs: Sequence[AnyGadget], objects: list[bytes], context: NodeContext) -> Iterator[Source]:
    """Yields the sources one by one; the caller closes them. Raises AgentError and FrameError."""
    context.packets.is_needed = sum(map(_has_packets, specs)) > 1
    for spec in specs:
        if not 0 <= spec.object < len(objects):
            raise FrameError(f"RUN: {spec.name} names the object {spec.object}, but {len(objects)} were sent")
        yield make_source(spec, objects[spec.object], context)


def make_source(spec: AnyGadget, elf: bytes, context: NodeContext) -> Source:
    """Makes and attaches the source for one of RUN's `gadgets`. Raises AgentError."""
    if spec.kind not in _CLASSES:
        raise AgentError(
            f"gadget {spec.name}: this agent knows no gadgets of kind {spec.kind!r}",
            "kubectl gadget deploy, which updates the agents",
        )
    module, name = _CLASSES[spec.kind]
    source: Source = getattr(import_module(f"kubectl_gadget.agent.{module}"), name)(spec, elf, context)
    return source


def _has_packets(spec: AnyGadget) -> bool:
    sets = [names for choice in spec.programs for names in choice.any_of] if isinstance(spec, GadgetSpec) else []
    return any(_PACKETS in names for names in sets)


def _own_processes(filter: FilterSpec) -> dict[str, int]:
    """Returns variables with the PIDs that gadgets leave out: this process and the client that started it, when host
    processes are wanted, but not these two."""
    if not this_node.client() or not filter.host or filter.own_processes:
        return {}
    return dict(zip(OWN_PROCESSES, (os.getpid(), this_node.client()), strict=True))
