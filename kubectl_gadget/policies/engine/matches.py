"""From the engine's records to what happened: `struct policy_event` of bpf/include/policy/event.h.

One record stands for all policies whose selectors it has, so it gives one `Match` for each of them. The trap: the
record's values are all that any policy reads there; a match has its own hook's arguments only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubectl_gadget.policies.engine.compiled_hook import CompiledHook
from kubectl_gadget.policies.engine.selectors_at_hook import SelectorAtHook
from kubectl_gadget.policy_events.exec_id import ExecId
from kubectl_gadget.policy_events.record import Caller, Value, function_called, read


@dataclass(frozen=True)
class Match:
    """A policy's selector that matched a call."""

    place: SelectorAtHook
    values: tuple[Value | None, ...]
    """of the hook's arguments, in their order"""
    data: tuple[Value | None, ...]
    """of the hook's `data`"""
    returned: Value | None
    called: str
    """of a hook at many functions, which one; else empty"""
    verdict: int
    """what the kernel returned instead of going on; 0: nothing"""
    signal: int
    """sent to the process; 0: none"""
    exec: ExecId
    parent: ExecId
    caller: Caller
    """as it was then"""
    file_id: int
    """of a file that is followed, the same from open to the last close; 0: none"""
    hash: str
    """of a file by IMA; empty: none"""


def matches(record: bytes | memoryview, hooks: Sequence[CompiledHook]) -> Iterator[Match]:
    """Those of one record."""
    found = read(record, lambda number: hooks[number].forms)
    hook = hooks[found.hook]
    for bit in found.selectors:
        place = hook.bits[bit]
        if place is None:
            continue
        arguments = hook.arguments[id(place.hook)]
        result = hook.results[id(place.hook)]
        yield Match(
            place,
            tuple(None if slot is None else found.values.get(slot) for slot in arguments),
            tuple(None if slot is None else found.values.get(slot) for slot in hook.data[id(place.hook)]),
            None if result is None else found.values.get(result),
            function_called(None if hook.called is None else found.values.get(hook.called)),
            found.verdict,
            found.signal,
            found.exec,
            found.parent,
            found.caller,
            found.file_id,
            found.hash,
        )
