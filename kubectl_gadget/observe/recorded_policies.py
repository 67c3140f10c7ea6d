"""Evaluates policies on a recording's rows: finds the process of each call, and makes the events of a live run.

The trap: processes are known from rows of trace process, so a row is decided after the join, in the order of time; and
what rows do not contain, or have as null or cut, is Undecided, never a guess, whatever the call had.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from posixpath import basename
from typing import Any, Protocol

from kubectl_gadget.observe.happening import Decoded, Decoder, RecordedCall
from kubectl_gadget.observe.process import Process
from kubectl_gadget.observe.process_table import ProcessTable
from kubectl_gadget.observe.recorded_callers import RecordedCaller
from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selector_metadata import metadata_of
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook
from kubectl_gadget.policies.decisions.calls import (
    Address,
    ArgumentValue,
    Call,
    ConnectionArgument,
    FileArgument,
    Undecided,
)
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Argument, Scope
from kubectl_gadget.policies.recorded.hook_sources import HookSource
from kubectl_gadget.policies.recorded.recorded_hook import PRIVILEGES, Recorded, RecordedHook, gaps, recorded_hooks
from kubectl_gadget.policies.scope_labels import NAMESPACE_LABEL, ScopedWorkload, belongs, by_labels, by_node
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import filter_members, member_values
from kubectl_gadget.rows.columns.syscall_columns import cut_arguments, read_arguments
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.wire.policy_events.argument_values import argument as shown
from kubectl_gadget.wire.policy_events.event import EventArgument, PolicyEvent
from kubectl_gadget.wire.policy_events.exec_id import ExecId
from kubectl_gadget.wire.policy_events.policy_record import Form, Type, Value
from kubectl_gadget.wire.policy_messages import repository

_PROCESSES = "trace_process"
_RUNTIMES = ("runc", "crun", "youki", "exe")
"""Names of programs that start containers; `exe` is that of a copy in memory, /memfd:runc_cloned:/proc/self/exe."""
_MOST_LIMITED = 32_768
"""As many calls as the kernel remembers for rate limits."""
_CHANGING = {"setns": "namespaces", "unshare": "namespaces", "capset": "capabilities", "prctl": "capabilities"}


class BatchRow:
    """One row of a batch, as sources read it (policies/recorded/hook_sources.py)."""

    def __init__(self, columns: "Columns", row: int) -> None:
        self._columns = columns
        self._row = row

    def __getitem__(self, member: str) -> Any:
        found = self._columns.members(member)[self._row]
        if found is None:
            raise Undecided(f"{member} is not in the row")
        return found

    def number(self, field: str) -> int:
        return int(self._columns.fields(field)[self._row])

    def argument(self, position: int) -> ArgumentValue:
        numbers, texts = self._columns.arguments[self._row]
        text = texts[position]
        if text is None:
            return numbers[position]
        if self._columns.cut[self._row][position]:
            raise Undecided("the rest of a text that is cut")
        return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class Columns:
    """The columns of a batch, read when a row is asked for them."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._members: dict[str, list[Any]] = {}
        self._fields: dict[str, list[Any]] = {}

    def members(self, name: str) -> list[Any]:
        if name not in self._members:
            values = member_values(self.batch, name)
            if f"{name}_cut" in filter_members(self.batch.gadget):
                cut = member_values(self.batch, f"{name}_cut")
                values = [None if is_cut else value for value, is_cut in zip(values, cut, strict=True)]
            self._members[name] = values
        return self._members[name]

    def fields(self, name: str) -> list[Any]:
        if name not in self._fields:
            self._fields[name] = self.batch.raw(name).tolist()
        return self._fields[name]

    @cached_property
    def arguments(self) -> list[tuple[Sequence[int], Sequence[bytes | None]]]:
        return read_arguments(self.batch, self.batch.gadget.record.field("arguments"))

    @cached_property
    def cut(self) -> list[Sequence[bool]]:
        """For each row and argument of a call, whether its data was cut."""
        return cut_arguments(self.batch, self.batch.gadget.record.field("arguments"))


class Labels(Protocol):
    """Whether pods and nodes have the labels for the scopes of the policies; None: not known."""

    def is_for(self, scopes: Sequence[int], pod_uid: str, name: str) -> bool | None: ...
    def is_on(self, scope: int, node: str) -> bool | None: ...


class RecordedPolicies:
    """Evaluates policies on rows of `recorded`, the gadgets of a recording."""

    def __init__(self, policies: CompiledPolicies, recorded: Recorded, labels: Labels | None = None) -> None:
        self._scopes = policies.scopes
        self.labels = labels
        self._recorded = recorded
        hooks = recorded_hooks(policies, recorded)
        self.gaps = tuple(dict.fromkeys(gaps(hooks, recorded)))
        """what cannot be decided, for people"""
        self.followed = frozenset(_followed(hooks))
        """the files of programs whose children filters look for"""
        self.undecided: Counter[str] = Counter()
        """calls for which a policy could not be evaluated, by what is not known"""
        self._hooks: dict[str, list[RecordedHook]] = {}
        """by gadget, those of which it has rows"""
        for one in hooks:
            if one.place is not None:
                self._hooks.setdefault(one.place.source.gadget, []).append(one)
        self._posted: dict[Any, int] = {}

    @property
    def gadgets(self) -> tuple[str, ...]:
        """The gadgets whose rows are needed, without that of processes."""
        wanted = {*self._hooks, *({PRIVILEGES} & self._recorded.keys())}
        return tuple(sorted(wanted - {_PROCESSES}))

    def notes(self) -> Iterator[str]:
        """A note on calls for which the policies could not be evaluated."""
        if count := self.undecided.total():
            reasons = ", ".join(f"{reason} ({number}x)" for reason, number in self.undecided.most_common(3))
            yield f"policies could not be evaluated for {count:,} calls, since the recording lacks: {reasons}"

    def decoder(self, gadget: str, inner: Decoder | None) -> Decoder:
        """Returns a decoder of the gadget's rows: the calls that they stand for, then the events of `inner`."""
        hooks = self._hooks.get(gadget, [])

        def decode(batch: Batch) -> Sequence[Decoded | Sequence[Decoded]]:
            columns = Columns(batch)
            others = inner(batch) if inner is not None else [()] * len(batch)
            found: list[Decoded | Sequence[Decoded]] = []
            for number, other in enumerate(others):
                calls = self._calls(gadget, hooks, columns, number)
                if calls:
                    before = [call for call in calls if not call.after]
                    after = [call for call in calls if call.after]
                    several = (other,) if not isinstance(other, Sequence) else other
                    found.append((*before, *several, *after))
                else:
                    found.append(other)
            return found

        return decode

    def _calls(self, gadget: str, hooks: Sequence[RecordedHook], columns: Columns, number: int) -> list[RecordedCall]:
        row = BatchRow(columns, number)
        calls, counting = list[RecordedCall](), dict[tuple[int, str], HookSource]()
        pid, tid, comm = row.number("pid"), row.number("tid"), columns.members("comm")[number] or ""
        if gadget == PRIVILEGES and not row.number("errno"):
            changes = _CHANGING.get(columns.members("operation")[number] or "", "")
            if changes:
                calls.append(RecordedCall(pid, tid, comm, row, after=True, changes=changes))
        for one in hooks:
            place = one.place
            assert place is not None
            try:
                if not place.source.where(row):
                    continue
            except Undecided as reason:
                self.undecided[str(reason)] += 1
                continue
            group = (id(one.selectors[0].policy), place.source.group)
            if place.source.group and counting.setdefault(group, place.source) is not place.source:
                continue
            after = gadget == _PROCESSES and not place.source.by_caller
            calls.append(RecordedCall(pid, tid, comm, row, one, columns.batch.architecture, after))
        return calls

    def events(self, call: RecordedCall, table: ProcessTable, container: Container, time: int) -> Iterator[PolicyEvent]:
        """Yields the event that a call causes, if it does."""
        process = table.current(call.pid)
        if call.changes:
            if process is not None:
                process.changed |= {call.changes}
            return
        caller = RecordedCaller(process, table, container, self._is_in, PRIVILEGES in self._recorded)
        hook: RecordedHook = call.hook
        first = hook.selectors[0]
        try:
            if not self._is_in(self._scopes[first.scope], container, table.node) or _starts_sandbox(process, container):
                return
            found = hook.decide(caller, call.row)
        except Undecided as reason:
            self.undecided[str(reason)] += 1
            return
        if found is None or not self._is_within_limit(found[0], found[1], call, time):
            return
        yield _event(found[0], found[1], call, process)

    def _is_in(self, scope: Scope, container: Container, node: str) -> bool:
        """Whether a scope is for a container. Raises Undecided where labels are not known."""
        pods = None if scope.pods is None else tuple(one for one in scope.pods if one.key == NAMESPACE_LABEL)
        plain = replace(scope, nodes=None, pods=pods)
        workload = ScopedWorkload(
            container.namespace, container.pod, {}, container.container, repository(container.image)
        )
        if container.kind == "unknown":
            raise Undecided("the container")
        if not belongs(plain, workload):
            return False
        number = self._scopes.index(scope)
        answers: list[bool | None] = []
        if by_node(scope):
            answers.append(self.labels.is_on(number, node) if self.labels else None)
        if by_labels(scope) and container.pod:
            whose = (container.pod_uid, container.pod_name)
            answers.append(self.labels.is_for([number], *whose) if self.labels else None)
        if None in answers and False not in answers:
            raise Undecided("labels of the pod or the node")
        return all(answers)

    def _is_within_limit(self, selector: SelectorAtHook, call: Call, recorded: RecordedCall, time: int) -> bool:
        """Whether a selector with a rate limit may post now."""
        limit = selector.limit.rate_limit if selector.limit else None
        if limit is None:
            return True
        whom = {"thread": (recorded.tid,), "process": (recorded.pid,), "global": ()}[limit.scope]
        values = tuple(str(_known(call, one)) for one in selector.hook.arguments)
        key = (id(selector.hook), selector.number, whom, values)
        last = self._posted.get(key)
        if last is not None and time - last < limit.milliseconds * 1_000_000:
            return False
        self._posted[key] = time
        if len(self._posted) > _MOST_LIMITED:
            del self._posted[next(iter(self._posted))]
        return True


def _followed(hooks: Sequence[RecordedHook]) -> Iterator[str]:
    for one in (selector.selector for hook in hooks for selector in hook.selectors):
        for filter in (*one.filters, *one.return_filters):
            if filter.follow:
                yield from (value for value in filter.values if isinstance(value, str))


def _starts_sandbox(process: Process | None, container: Container) -> bool:
    """Whether it is the container runtime that starts a pod's sandbox, which policies leave alone: a program that is
    not the sandbox's own, since the process has not executed one there."""
    if container.kind != "sandbox" or process is None:
        return False
    return process.container.kind != "sandbox" or process.exe is None or basename(process.exe) in _RUNTIMES


def _known(call: Call, argument: Argument) -> ArgumentValue | Undecided:
    try:
        return call.values[argument]
    except Undecided as reason:
        return reason


def _event(selector: SelectorAtHook, call: Call, recorded: RecordedCall, process: Process | None) -> PolicyEvent:
    description, hook = metadata_of(selector), selector.hook
    returned = None
    if hook.return_argument is not None:
        returned = _shown(hook.return_argument, call.returned, recorded.architecture)
    return description.event(
        recorded.architecture,
        process=process.id if process else ExecId(0, recorded.pid),
        tid=recorded.tid,
        args=tuple(_shown(one, _known(call, one), recorded.architecture) for one in hook.arguments),
        data=tuple(_shown(one, _known(call, one), recorded.architecture) for one in hook.data),
        returned=returned,
        comm=recorded.comm,
    )


def _shown(argument: Argument, value: ArgumentValue | Undecided, machine: str) -> EventArgument:
    """An argument in the form of a live event's."""
    if isinstance(value, Undecided):
        return EventArgument("error", {"Message": f"the {argument.type} is not in the recording"}, argument.label)
    return shown(argument.type, argument.label, _value(argument, value), machine)


def _value(argument: Argument, value: ArgumentValue) -> Value:
    type = ARGUMENT_TYPES[argument.type]
    match value:
        case int():
            return Value(Form(Type.NUMBER, (type.bits or 64) // 8, type.signed), (value,))
        case str():
            return Value(Form(Type.STRING, 0, False), text=value.encode("utf-8", "surrogateescape"))
        case FileArgument():
            return Value(Form(Type.FILE, 0, False), (0, 0, 0, 0), text=value.path.encode("utf-8", "surrogateescape"))
        case ConnectionArgument():
            return _connection(argument, value)
    return Value(Form(Type.STRING, 0, False), unreadable=True)


def _connection(argument: Argument, value: ConnectionArgument) -> Value:
    ports = [value.source_port or 0, value.destination_port or 0]
    addresses: list[Address | None] = [value.source, value.destination]
    kind = Type.SOCK
    if argument.type.startswith("sockaddr"):  # it is shown as where a socket goes
        kind, ports, addresses = Type.SOCKADDR, ports[::-1], addresses[::-1]
    numbers = (*ports, value.protocol or 0, value.family or 0, 0, 1 if value.protocol == 6 else 0, 0, 0)
    return Value(Form(kind, 0, False), numbers, tuple(addresses), (value.path or "").encode("utf-8", "surrogateescape"))
