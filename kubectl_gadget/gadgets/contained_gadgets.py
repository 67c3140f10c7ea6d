"""The requests that clients may make of a contained agent for each gadget (agent/session/declared.py), as one JSON
file.

The agent has no Python code that reads gadgets' YAML, and must not trust what a client says about a gadget. So the
build lists, for each gadget, the objects it may use and every value of RUN that the user may not choose. A
gadget that is missing here is rejected; gadgets that can do more than observe the selected containers are marked as
`left_out`. Other sessions need their objects' hashes, too (agent/session/declared.py).
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from kubectl_gadget.gadgets.schema import ARCHITECTURES, STRING_TYPES, Gadget, Parameter

FILE = "contained.json"
LEFT_OUT = {
    "network_policy": "it refuses packets",
    "profile_functions": "its user chooses the files of containers to which probes are attached",
}
"""Gadgets that contained agents do not run, with the reason."""
POLICY = "policy"
"""The object of the policy engine; no gadget has it."""
VALUES = {"trace_dns": {"filter_port": [53, 5353]}}
"""Parameters whose other values would show more than the gadget is for: complete packets of any other port."""
_JSON_TYPES = {"bool": "bool", "int": "int", "duration": "int", "string": "text", "syscalls": "text"}
"""By the type of a parameter: the type of its value in JSON; all others are bytes."""


def entries(built: Path, gadgets: Iterable[Gadget]) -> dict[str, dict[str, object]]:
    """The contents of the file."""
    found = {gadget.name: entry(gadget, built) for gadget in gadgets}
    return found | {POLICY: {"objects": _digests(POLICY, built), "left_out": "it may deny calls and kill processes"}}


def entry(gadget: Gadget, built: Path) -> dict[str, object]:
    """The requests that one gadget allows. `fixed` contains the members of RUN's entry that must have exactly this
    value."""
    globals = {name: {"offset": place.offset, "size": place.size} for name, place in gadget.agent.globals.items()}
    fixed: dict[str, object] = {"globals": globals, "kind": "top" if gadget.kind == "profile" else gadget.kind}
    if gadget.kind in ("top", "profile"):
        fixed["record_bytes"] = gadget.record.size
    if gadget.agent.libraries:
        fixed["libraries"] = [
            {"files": list(item.files), "functions": item.functions} for item in gadget.agent.libraries
        ]
    if gadget.agent.sampler:
        fixed |= {"sampler": gadget.agent.sampler, "layout": layout(gadget)}
    parameters = {
        **{name: type for parameter in gadget.parameters for name, type in _types(parameter).items()},
        **VALUES.get(gadget.name, {}),
    }
    if gadget.kind == "recorder":
        parameters |= {"gadget_recorder_on_crash": "bool", "gadget_recorder_on_kill": "bool"}
    found: dict[str, object] = {
        "objects": _digests(gadget.name, built),
        "programs": [
            {
                "any_of": [list(names) for names in choice.any_of],
                "purpose": choice.purpose,
                **({"aside": True} if choice.aside else {}),
            }
            for choice in gadget.agent.programs
        ],
        "fixed": fixed,
        "parameters": parameters,
        "whole_nodes": gadget.whole_nodes,
    }
    if gadget.name in LEFT_OUT:
        found["left_out"] = LEFT_OUT[gadget.name]
    if gadget.kind == "recorder":
        found["recorder_offset"] = gadget.record.field("because").offset
    return found


def layout(gadget: Gadget) -> dict[str, object]:
    """The layout of records that the agent fills in itself, for gadgets with a sampler."""
    fields = gadget.record.fields
    return {
        "size": gadget.record.size,
        "fields": {field.name: [field.offset, field.size] for field in fields},
        "texts": [field.name for field in fields if field.type in STRING_TYPES],
    }


def _digests(name: str, built: Path) -> dict[str, str]:
    paths = {machine: built / "objects" / machine / f"{name}.bpf.o" for machine in ARCHITECTURES}
    return {machine: hashlib.sha256(path.read_bytes()).hexdigest() for machine, path in paths.items() if path.is_file()}


def _types(parameter: Parameter) -> dict[str, str]:
    return dict.fromkeys(parameter.variables, _JSON_TYPES.get(parameter.type, "bytes"))
