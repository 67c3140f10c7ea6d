"""Decodes records of the policy engine for a story: the policy, the arguments, and the action taken.

The trap: one record contains several events, one for each policy whose selector matched.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kubectl_gadget.gadgets.schema import About, Field, Gadget, RecordLayout
from kubectl_gadget.linux.files import errno_name
from kubectl_gadget.linux.processes import signal_name
from kubectl_gadget.policies.compiler.compiled_hook import CompiledHook
from kubectl_gadget.policies.compiler.matches import Match, matches
from kubectl_gadget.policies.compiler.selector_metadata import metadata_of
from kubectl_gadget.rows import stacks
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.stack_columns import STACK
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.rows.stacks import CallFrame, stack_of
from kubectl_gadget.wire.policy_events.event import PolicyEvent, StackEntry, read_event
from kubectl_gadget.wire.policy_events.event_metadata import make_event
from kubectl_gadget.wire.policy_events.policy_record import (
    HEAD,
    KERNEL_STACK_AT,
    RECORD,
    USER_STACK_AT,
    comm_of,
    verdict_text,
)

NAME = "policy"
_FIELDS = (
    ("timestamp", 0, 8, "gadget_timestamp"),
    ("cgroup", 8, 8, "gadget_cgroup"),
    ("pid", 16, 4, "__u32"),
    ("tid", 20, 4, "__u32"),
    ("marks", 72, 4, "__u32"),
    ("kernel_stack", KERNEL_STACK_AT, 8, STACK),
    ("user_stack", USER_STACK_AT, 8, STACK),
)
GADGET = Gadget(
    name=NAME,
    command=("observe",),
    about=About("security", "What policies matched"),
    record=RecordLayout("policy_event", HEAD, tuple(Field(name, at, size, type) for name, at, size, type in _FIELDS)),
    columns=(),
)
"""The gadget as the client knows it. policies.compiler makes what it runs, so it has no programs."""
INSTALLED = Gadget(
    name="installed",
    command=("observe",),
    about=About("security", "What installed policies matched"),
    record=RecordLayout("gadget_record", RECORD, GADGET.record.fields),
    columns=(),
)
"""The gadget for policies that are in force already. The agents send the event as JSON after the record's head."""
_LENGTH = (1 << 30) - 1


IsFor = Callable[[Sequence[int], str, str], bool | None]
"""Whether a pod, by UID and NAMESPACE/NAME, has the labels for some scopes; None: not known yet."""


def decoder(
    hooks: Sequence[CompiledHook], is_for: IsFor | None = None
) -> Callable[[Batch], Sequence[Sequence[PolicyEvent]]]:
    """Returns a decoder that yields the events of each record, in the order of policies. It leaves out policies that do
    not apply to the pod by its labels, which its node did not know yet."""

    def decode(batch: Batch) -> Sequence[Sequence[PolicyEvent]]:
        found = []
        columns = (batch.raw(name).tolist() for name in ("tid", "kernel_stack", "user_stack"))
        rows = zip(_records(batch), batch.row_containers(), *columns, strict=True)
        for record, container, tid, kernel, user in rows:
            wanted = (match for match in matches(record, hooks) if is_for is None or _is_for(is_for, match, container))
            events = [event(match, tid, batch.architecture) for match in wanted]
            if kernel or user:  # a lost stack is empty
                stacks = _frames(kernel), _frames(user)
                events = [replace(entry, kernel_stack=stacks[0], user_stack=stacks[1]) for entry in events]
            found.append(events)
        return found

    return decode


def installed_events(batch: Batch) -> Sequence[PolicyEvent]:
    return [read_event(json.loads(record[RECORD:]), comm_of(record)) for record in _records(batch)]


def _records(batch: Batch) -> Iterator[bytes]:
    data = batch.buffer.bytes
    for start in batch.starts.tolist():
        length = int.from_bytes(data[start - 8 : start - 4].tobytes(), "little") & _LENGTH
        yield data[start : start + length].tobytes()


def _is_for(is_for: IsFor, match: Match, container: Container) -> bool:
    # An action that was taken is reported, whether or not the policy applies.
    if not container.pod or match.found.verdict or match.found.signal:
        return True
    scopes = (match.place.scope, *match.place.workloads)
    return is_for(scopes, container.pod_uid, container.pod_name) is not False


def event(match: Match, tid: int, machine: str = "x86_64") -> PolicyEvent:
    """The event for a match; `machine` is the architecture of its node."""
    return make_event(metadata_of(match.place), match, tid, _verdict, machine)


def _frames(number: int) -> tuple[StackEntry, ...]:
    return tuple(map(_frame, stack_of(number) or ()))


def _frame(frame: CallFrame) -> StackEntry:
    offset = int(frame.offset, 16) if frame.offset else 0
    if frame.function == stacks.UNKNOWN:
        return StackEntry(address=offset, module=frame.module)
    return StackEntry(symbol=frame.function, offset=offset, module=frame.module)


def _verdict(verdict: int, signal: int) -> str:
    parts = [verdict_text(verdict, errno_name)] if verdict else []
    return " ".join([*parts, *([signal_name(signal)] if signal else [])])
