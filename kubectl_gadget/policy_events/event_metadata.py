"""Static event metadata, so that readers can decode records without the policy.

The client makes one for each selector; agents get those of installed policies as JSON.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from kubectl_gadget.policy_events.argument_values import argument
from kubectl_gadget.policy_events.event import EventArgument, Hook, PolicyEvent
from kubectl_gadget.policy_events.exec_id import ExecId
from kubectl_gadget.policy_events.loaded_files import loaded_file
from kubectl_gadget.policy_events.policy_record import Caller, Value, blocks
from kubectl_gadget.policy_events.strict_names import system_call


@dataclass(frozen=True)
class EventMetadata:
    """What the events of one selector have in common."""

    hook: Hook
    function: str
    subsystem: str
    policy: str
    action: str
    return_action: str = ""
    message: str = ""
    tags: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    """type and label of each argument"""
    data: tuple[tuple[str, str], ...] = ()
    returned: tuple[str, str] | None = None
    path: str = ""
    """for a uprobe or a USDT probe: its file"""
    offset: int = 0
    reference_counter: int = 0
    system_call: bool = False
    """`function` is a system call, for which the kernel has another name on each architecture"""
    error: int = 0
    """for events at a return: what the function returns if the call was denied; 0: it cannot have been"""
    signal: int = 0
    """for events at a return: the signal that was sent at the call; 0: none"""
    would_be: str = ""
    """what the policy asks for but is not enforced, as in PolicyEvent"""

    def spec(self) -> dict[str, Any]:
        """The metadata as JSON."""
        return asdict(self)


def read_metadata(value: dict[str, Any]) -> EventMetadata:
    """The metadata from JSON. Raises KeyError or TypeError."""
    returned = value["returned"]
    lists = {
        "tags": tuple(value["tags"]),
        "arguments": tuple((str(type), str(label)) for type, label in value["arguments"]),
        "data": tuple((str(type), str(label)) for type, label in value["data"]),
        "returned": (str(returned[0]), str(returned[1])) if returned else None,
    }
    return EventMetadata(**(value | lists))


class Matched(Protocol):
    """What the engine read when a selector matched."""

    @property
    def values(self) -> Sequence[Value | None]:
        """the values of the hook's arguments, in their order"""

    @property
    def data(self) -> Sequence[Value | None]:
        """the values of the hook's `data`"""

    @property
    def returned(self) -> Value | None: ...

    @property
    def called(self) -> str:
        """for a hook at several functions, the one that was called; else empty"""

    @property
    def verdict(self) -> int: ...

    @property
    def signal(self) -> int: ...

    @property
    def exec(self) -> ExecId: ...

    @property
    def caller(self) -> Caller: ...

    @property
    def file_id(self) -> int: ...

    @property
    def hash(self) -> str: ...


def make_event(
    description: EventMetadata, matched: Matched, tid: int, spell: Callable[[int, int], str], machine: str
) -> PolicyEvent:
    """The event. `spell` describes verdict and signal for people; `machine` is the node's architecture."""
    verdict, signal = _done(description, matched)
    returned = None
    if description.returned is not None and matched.returned is not None:
        returned = argument(*description.returned, matched.returned, machine)
    path, arguments = description.path, _shown(description.arguments, matched.values, machine)
    if description.hook == "loader":
        path, id = loaded_file(matched.values)
        arguments = (EventArgument("build_id", id),)
    return PolicyEvent(
        hook=description.hook,
        process=matched.exec,
        tid=tid,
        function=matched.called or description.function,
        symbol=system_call(matched.called or description.function, machine) if description.system_call else "",
        subsystem=description.subsystem,
        path=path,
        offset=description.offset,
        reference_counter=description.reference_counter,
        args=arguments,
        data=_shown(description.data, matched.data, machine),
        returned=returned,
        policy=description.policy,
        message=description.message,
        tags=description.tags,
        action=description.action,
        return_action=description.return_action,
        blocked=blocks(verdict),
        verdict=spell(verdict, signal),
        would_be=description.would_be,
        credentials=matched.caller.credentials,
        namespaces=matched.caller.namespaces,
        host_namespaces=matched.caller.host_namespaces,
        comm=matched.caller.comm,
        ima_hash=matched.hash,
        file_id=f"{matched.file_id:x}" if matched.file_id else "",
    )


def _done(description: EventMetadata, matched: Matched) -> tuple[int, int]:
    """Verdict and signal; at a return, those of the call."""
    verdict, returned = matched.verdict, matched.returned
    if not verdict and description.error and returned is not None and not returned.unreadable:
        differs = (returned.numbers[0] - description.error) % (1 << 8 * returned.form.size)
        verdict = 0 if differs else description.error
    return verdict, matched.signal or description.signal


def _shown(read: Sequence[tuple[str, str]], values: Sequence[Value | None], machine: str) -> tuple[EventArgument, ...]:
    pairs = zip(read, values, strict=True)
    return tuple(argument(type, label, value, machine) for (type, label), value in pairs if value is not None)
