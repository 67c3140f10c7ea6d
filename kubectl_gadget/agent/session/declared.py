"""Limits a session to the requests that its command declared; in a contained session, only gadgets of this agent's own
catalogue, with checked values.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget.agent.elf import digest
from kubectl_gadget.agent.pod import own_files, presence
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec, ProgramChoice, RecorderSpec
from kubectl_gadget.wire.frames import FrameType
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec
from kubectl_gadget.wire.session_command import DRY_RUN, SessionCommand, acts, declared_name, enforces

# Compares what a session's command declared, which is in the API server's audit log, with what RUN requests.
#
# A gadget's name is accepted only with the object that the build made for it; all other objects have to be declared as
# `own:`. Whether a run enforces is decided by the object, and by values only if the object is known. The trap: the
# client says where an object's variables are, so a switch such as `dry_run` counts only at the offset that the build
# recorded.

_INSTALLED, _POLICY = "installed", "policy"
Entry = dict[str, Any]
"""One gadget's requests in the catalogue (gadgets/contained_gadgets.py)."""


def known_objects() -> dict[str, Entry]:
    """Returns the objects that belong to this agent's version, by gadget and hash (gadgets/contained_gadgets.py).
    Raises AgentError when the file is missing."""
    try:
        found: dict[str, Entry] = json.loads(own_files.read("built/contained.json"))
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


def _acts(spec: AnyGadget, objects: Sequence[bytes], known: Mapping[str, Entry]) -> bool:
    """True if the gadget could do more than observe. Raises AgentError when its name belongs to another object."""
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


# Contained sessions.
#
# An observer chooses parameters and containers. Everything else about a gadget (its object, the offsets of its
# variables, its programs, the files and functions that probes attach to) has to be as the build recorded it
# (gadgets/contained_gadgets.py). The trap: an unknown member of RUN is refused, not ignored, or a newer one would
# pass unchecked.

_FRAMES = frozenset(
    {FrameType.OBJECT, FrameType.RUN, FrameType.FILTER, FrameType.HEARTBEAT, FrameType.STOP, FrameType.SHOW}
)
"""The frames that a contained session accepts."""
SESSIONS = 16
"""Contained sessions at the same time on a node. Each uses memory of the agent's pod."""
_MOST_RING_BYTES = 16 << 20
_MOST_ENTRIES = 1 << 18
_MOST_RECORDED_BYTES = 128 << 20
_MOST_RECORDS = 100_000
_LEAST_INTERVAL = 50
"""Milliseconds."""
_MOST_OFTEN = 999
"""Samples per second."""
_NAMED_ONLY = "gadget_node_named_only"
"""The variable of bpf/include/gadget/filter.h."""
_SHOWN = 60
"""Characters of a wrong value that messages show."""
_FREE = frozenset({"name", "object", "programs", "parameters"})
"""Members that are checked one by one, in addition to numbers that have limits."""
_LIMITS = {
    "ring_bytes": (1, _MOST_RING_BYTES),
    "map_entries": (1, _MOST_ENTRIES),
    "interval_ms": (_LEAST_INTERVAL, 1 << 53),
}
_RECORDER = {"last": (1, _MOST_RECORDS), "bytes": (1, _MOST_RECORDED_BYTES)}


def take_place() -> int:
    """Takes a slot for a contained session until this process ends. Returns the descriptor that holds it. Raises
    AgentError when all are taken."""
    for number in range(SESSIONS):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{presence.FOLDER}/kubectl-gadget.contained.{number}", flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return fd
    raise AgentError(f"{SESSIONS} contained sessions already run on this node", "end one of them")


class Catalogue:
    """The gadgets of this agent. Raises AgentError when the catalogue's file is missing."""

    def __init__(self, command: SessionCommand) -> None:
        self._entries = known_objects()
        self._command = command
        self._machine = os.uname().machine

    def entry(self, name: object) -> Entry:
        """Returns the entry of one gadget. Raises AgentError."""
        found = self._entries.get(name) if isinstance(name, str) else None
        if found is None or "left_out" in found:
            why = f": {found['left_out']}" if found else ""
            remedy = "an agent that was deployed without --contained"
            raise AgentError(f"contained agents do not run {name!r}{why}", remedy)
        if self._command.namespace is not None and not _keeps_to_containers(found):
            raise AgentError(f"{name} shows whole nodes, but this session may see only one namespace")
        return found

    def check_frame(self, type: int) -> None:
        """Raises AgentError when contained sessions do not accept frames of this type."""
        if type not in _FRAMES:
            raise AgentError(f"contained agents do not take frames of type {type}")

    def check_object(self, elf: bytes, before: int) -> None:
        """Checks an OBJECT frame after `before` others: it must be a declared gadget's object. Raises AgentError."""
        names = self._command.gadgets or ()
        if before >= len(names) or digest(elf) not in {self._digest(name) for name in names}:
            raise AgentError(
                "contained agents load only the objects of their own catalogue, and this is another one",
                "a client of the agent's version, and no gadget of your own",
            )

    def checked(self, spec: AnyGadget, objects: list[bytes]) -> GadgetSpec:
        """Returns an entry of RUN's gadgets with checked members only. Raises AgentError."""
        name = spec.name
        entry = self.entry(name)
        if not isinstance(spec, GadgetSpec):
            raise AgentError(f"{name}: `kind` differs from this agent's catalogue", "the agent's version")
        if not _is_within(spec.object, 0, len(objects) - 1):
            raise AgentError(f"{name}: there is no object {spec.object}")
        if digest(objects[spec.object]) != self._digest(name):
            raise AgentError(f"{name}: its object belongs to another gadget")
        fixed = GadgetSpec.from_json({**entry["fixed"], "name": name, "object": spec.object}, "the agent's catalogue")
        free: dict[str, object] = {}
        for key in spec.given():
            value = getattr(spec, key)
            if key in (fixed.given() | {"kind"}) - _FREE:
                if value != getattr(fixed, key):
                    raise AgentError(f"{name}: `{key}` differs from this agent's catalogue", "the agent's version")
            elif key in _LIMITS:
                free[key] = _limited(name, key, value, *_LIMITS[key])
            elif key == "stack_offsets":
                free[key] = value
            elif key == "recorder" and "recorder_offset" in entry:
                free[key] = _recorder(name, value, entry["recorder_offset"])
            elif key not in _FREE:
                raise AgentError(f"{name}: contained agents do not take `{key}`")
        if entry["programs"] and not spec.programs:
            raise AgentError(f"{name}: RUN asks for none of its programs", "a client of the agent's version")
        free["programs"] = tuple(_programs(name, wanted, entry["programs"]) for wanted in spec.programs)
        free["parameters"] = {
            key: _parameter(name, key, value, entry["parameters"]) for key, value in spec.parameters.items()
        }
        return fixed.replace(**free)

    def _digest(self, name: str) -> str | None:
        digests: dict[str, str] = self._entries.get(name, {}).get("objects", {})
        return digests.get(self._machine)


def _keeps_to_containers(entry: Entry) -> bool:
    """True if the gadget's programs, or the agent, check for each row that its container is known and wanted."""
    fixed = entry["fixed"]
    return not entry["whole_nodes"] and (
        _NAMED_ONLY in fixed["globals"] or fixed.get("sampler") in ("mounts", "resolvers")
    )


def _is_within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _limited(name: object, key: str, value: object, least: int, most: int) -> int:
    if not _is_within(value, least, most):
        raise AgentError(f"{name}: `{key}` is {value!r}; contained agents take {least} to {most}")
    assert isinstance(value, int)
    return value


def _recorder(name: str, value: RecorderSpec | None, offset: int) -> RecorderSpec:
    if value is None or value.offset != offset:
        raise AgentError(f"{name}: `recorder` differs from this agent's catalogue")
    for key, limits in _RECORDER.items():
        _limited(name, key, getattr(value, key), *limits)
    return value


def _programs(name: str, wanted: ProgramChoice, known: list[Entry]) -> ProgramChoice:
    """Checks one entry of `programs`. Returns the catalogue's, with the `optional` of the request."""
    choices = (ProgramChoice.from_json(choice, "the agent's catalogue") for choice in known)
    found = next((choice for choice in choices if choice.any_of == wanted.any_of), None)
    if found is None:
        raise AgentError(f"{name}: its programs differ from this agent's catalogue")
    return found.replace(optional=wanted.optional)


def _parameter(
    name: str, key: str, value: int | str | bytes, known: Mapping[str, str | list[int]]
) -> int | str | bytes:
    type = known.get(key)
    if type is None:
        raise AgentError(f"{name} has no parameter {key}")
    if isinstance(type, list):
        if isinstance(value, bool) or value not in type:
            raise AgentError(f"{name}: contained agents take {type} for the parameter {key}, not {value!r}")
        return value
    if key == "gadget_frequency":
        return _limited(name, key, value, 1, _MOST_OFTEN)
    right = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "text": isinstance(value, str),
        "bytes": isinstance(value, bytes),
    }
    if not right[type]:
        raise AgentError(f"{name}: parameter {key} takes {type}, not {str(value)[:_SHOWN]!r}")
    return value
