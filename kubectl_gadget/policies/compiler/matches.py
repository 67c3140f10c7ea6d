"""Decodes the engine's records, `struct policy_event` of bpf/include/policy/event.h, into matches.

One record covers all policies whose selectors matched, and yields one `Match` for each. The trap: a record contains the
values that any policy at the hook reads; a match contains the arguments of its own policy's hook only.
"""

from collections.abc import Iterator, Sequence

from kubectl_gadget.policies.compiler.compiled_hook import CompiledHook
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook
from kubectl_gadget.wire.policy_events import event_metadata
from kubectl_gadget.wire.policy_events.policy_record import read

Match = event_metadata.Match[SelectorAtHook]


def matches(record: bytes | memoryview, hooks: Sequence[CompiledHook]) -> Iterator[Match]:
    found = read(record, lambda number: hooks[number].forms)
    hook = hooks[found.hook]
    for bit in found.selectors:
        place = hook.bits[bit]
        if place is None:
            continue
        key = id(place.hook)
        slots = (hook.arguments[key], hook.data[key], hook.results[key], hook.called)
        yield event_metadata.match_of(found, place, *slots)
