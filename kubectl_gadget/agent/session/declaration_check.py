"""Compares what a session's command declared, which is in the API server's audit log, with what RUN requests.

A gadget's name is accepted only with the object that the build made for it; all other objects have to be declared as
`own:`. Whether a run enforces is decided by the object, and by values only if the object is known. The trap: the client
says where an object's variables are, so a switch such as `dry_run` counts only at the offset that the build recorded.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget.agent.elf import digest
from kubectl_gadget.agent.payload import own_files
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec
from kubectl_gadget.wire.session_command import DRY_RUN, SessionCommand, acts, declared_name, enforces

_INSTALLED, _POLICY = "installed", "policy"


def known_objects() -> dict[str, dict[str, Any]]:
    """Returns the objects that belong to this agent's version, by gadget and hash (gadgets/contained_gadgets.py).
    Raises AgentError when the file is missing."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(own_files.read("built/contained.json"))
    except (OSError, ValueError) as error:
        raise AgentError(f"the agent's catalogue cannot be read: {error}", "build it (make setup)") from None
    return found


def check_declared(command: SessionCommand, specs: Sequence[AnyGadget], objects: Sequence[bytes], in_pod: bool) -> None:
    """Raises AgentError when RUN requests anything that was not declared, FrameError when it is malformed."""
    names = [declared_name(spec) for spec in specs]
    if command.gadgets is None:
        if in_pod or command.enforces:
            what = "the command of this session declares no gadgets, but RUN asks for " + ", ".join(names)
            raise AgentError(what, "a client of the agent's version")
        return
    if sorted(names) != sorted(command.gadgets):
        declared = ", ".join(command.gadgets) or "none"
        raise AgentError(f"RUN asks for the gadgets {', '.join(names)}, but the command declares {declared}")
    known = known_objects()
    acting = [spec.name for spec in specs if _acts(spec, objects, known)]
    if acting and not command.enforces:
        raise AgentError(f"{', '.join(acting)} would enforce, but the command does not declare --enforces")


def _acts(spec: AnyGadget, objects: Sequence[bytes], known: Mapping[str, dict[str, Any]]) -> bool:
    """Whether the gadget could do more than observe. Raises AgentError when its name belongs to another object."""
    if not 0 <= spec.object < len(objects):
        raise FrameError(f"RUN: {spec.name} names the object {spec.object}, but {len(objects)} were sent")
    elf = objects[spec.object]
    if isinstance(spec, GadgetSpec) and spec.own:
        return acts(spec, elf)
    if isinstance(spec, InstalledSpec):
        _check_name(spec, spec.name == _INSTALLED)
        return False
    entry = known.get(spec.name, {})
    is_known = entry.get("objects", {}).get(os.uname().machine) == digest(elf)
    _check_name(spec, is_known and isinstance(spec, PolicySpec) == (spec.name == _POLICY))
    if isinstance(spec, PolicySpec):
        return enforces(spec)
    places = entry["fixed"]["globals"]
    if DRY_RUN not in places:
        return False
    own = GadgetSpec.from_json({"name": spec.name, "object": 0, "globals": places}, "the agent's catalogue")
    return spec.globals != own.globals or enforces(spec)


def _check_name(spec: AnyGadget, is_right: bool) -> None:
    if not is_right:
        what = f"RUN has another program under the name {spec.name}, and the audit log would show that name"
        raise AgentError(what, "a client of the agent's version, and `own` for gadgets of your own")
