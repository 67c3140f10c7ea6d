"""From what the user asked to what every node's agent is asked: the RUN frame's gadgets and their BPF objects.

The trap: a condition of --filter may be pushed into the kernel only when it never drops a row that the filter would
keep, and an option that the user gave always wins over it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget import catalogue
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.session.node import RunRequest
from kubectl_gadget.session.options import GadgetRun


def build(runs: Sequence[GadgetRun], pushed: Sequence[Mapping[str, Any]], ring_bytes: int) -> RunRequest:
    """RUN for these gadgets; `pushed` holds, for each, parameters (by name) that come from the filter."""
    entries = [_entry(index, run, pushed[index], ring_bytes) for index, run in enumerate(runs)]

    def object_bytes(index: int, architecture: str) -> bytes:
        return catalogue.object_bytes(runs[index].gadget.name, architecture, runs[index].directory)

    return RunRequest(entries, object_bytes)


def _entry(index: int, run: GadgetRun, pushed: Mapping[str, Any], ring_bytes: int) -> dict[str, Any]:
    gadget = run.gadget
    return {
        "name": gadget.name,
        "object": index,
        "programs": [
            {"any_of": [list(programs) for programs in choice.any_of], "optional": choice.optional}
            for choice in gadget.programs
        ],
        "globals": {name: {"offset": place.offset, "size": place.size} for name, place in gadget.globals.items()},
        "parameters": _variables(gadget, {**pushed, **run.parameters}),
        "ring_bytes": ring_bytes,
    }


def _variables(gadget: Gadget, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the BPF object's variable; a parameter without a value keeps its default."""
    return {
        parameter.variable: values.get(parameter.name, parameter.default)
        for parameter in gadget.parameters
        if parameter.variable and values.get(parameter.name, parameter.default) is not None
    }
