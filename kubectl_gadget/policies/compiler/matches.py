"""Decodes the engine's records, `struct policy_event` of bpf/include/policy/event.h, into matches.

One record covers all policies whose selectors matched, and yields one `Match` for each. The trap: a record contains the
values that any policy at the hook reads; a match contains the arguments of its own policy's hook only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubectl_gadget.policies.compiler.compiled_hook import CompiledHook
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook
from kubectl_gadget.policy_events.exec_id import ExecId
from kubectl_gadget.policy_events.policy_record import Caller, Value, function_called, read


@dataclass(frozen=True)
class Match:
    """A policy's selector that matched a call."""

    place: SelectorAtHook
    values: tuple[Value | None, ...]
    """the values of the hook's arguments, in their order"""
    data: tuple[Value | None, ...]
    """the values of the hook's `data`"""
    returned: Value | None
    called: str
    """for a hook at several functions, the one that was called; else empty"""
    verdict: int
    """the value that the kernel returned instead of running the call; 0: none"""
    signal: int
    """the signal sent to the process; 0: none"""
    exec: ExecId
    parent: ExecId
    caller: Caller
    """the calling process at the time of the call"""
    file_id: int
    """identifies a followed file from open to the last close; 0: none"""
    hash: str
    """the file's IMA hash; empty: none"""


def matches(record: bytes | memoryview, hooks: Sequence[CompiledHook]) -> Iterator[Match]:
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
