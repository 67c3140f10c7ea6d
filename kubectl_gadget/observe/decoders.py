"""Decodes records of processes, files, connections, DNS queries and policies into the events of a story."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.gadgets.schema import About, Field, Gadget, RecordLayout
from kubectl_gadget.linux.names import NAMESPACE_KINDS, errno_name, signal_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent
from kubectl_gadget.policies.compiler.hooks import CompiledHook
from kubectl_gadget.policies.compiler.policies import Match, matches, metadata_of
from kubectl_gadget.rows import stacks
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.members import member_values as values
from kubectl_gadget.rows.peers import community_id, peers_of
from kubectl_gadget.rows.stacks import STACK, CallFrame, stack_of
from kubectl_gadget.wire.policy_events import Credentials, ExecId, PolicyEvent, StackEntry, read_event, read_exec_id
from kubectl_gadget.wire.policy_record import HEAD, KERNEL_STACK_AT, RECORD, USER_STACK_AT, comm_of, verdict_text
from kubectl_gadget.wire.record_reader import make_event

# Processes and files.


_CREDENTIALS = (
    *("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid", "securebits"),
    *("cap_permitted", "cap_effective", "cap_inheritable"),
)
_UNKNOWN = 0xFFFFFFFF


def process_events(batch: Batch) -> Sequence[ProcessEvent]:
    """The events in records of trace process, one for each row."""
    namespaces = zip(*(numbers(batch, f"ns_{kind}") for kind in NAMESPACE_KINDS), strict=True)
    columns: dict[str, Sequence[Any]] = {
        "process": _processes(batch, "a process without an identity"),
        "parent": [read_exec_id(raw) for raw in batch.raw("parent_exec_id").tolist()],
        "started": batch.to_wall(batch.raw("started")).tolist(),
        "credentials": _credentials(batch),
        "namespaces": [dict(zip(NAMESPACE_KINDS, row, strict=True)) for row in namespaces],
        "auid": [None if number == _UNKNOWN else number for number in numbers(batch, "auid")],
        "host_namespaces": [None if number == _UNKNOWN else number for number in numbers(batch, "ns_host")],
        "args": [None if args is None else tuple(args) for args in values(batch, "args")],
    }
    for name in ("tid", "container_pid", "inode", "links", "gained", "code", "signal"):
        columns[name] = numbers(batch, name)
    for name in ("operation", "comm", "exe", "path", "interpreted", "args_cut", "cwd"):
        columns[name] = values(batch, name)
    return [ProcessEvent(**row) for row in _rows(columns)]


def file_events(batch: Batch) -> Sequence[FileEvent]:
    """The events in records of trace fileuse, one for each row."""
    columns: dict[str, Sequence[Any]] = {
        "process": _processes(batch, "a file that no process uses"),
        "bytes": values(batch, "bytes"),
        "credentials": _credentials(batch),
    }
    for name in ("tid", "file_id", "inode", "device", "flags"):
        columns[name] = numbers(batch, name)
    for name in ("operation", "path", "protection", "comm"):
        columns[name] = values(batch, name)
    return [FileEvent(**row) for row in _rows(columns)]


def numbers(batch: Batch, field: str) -> list[Any]:
    """A field as in the record, for each row."""
    read: list[Any] = batch.raw(field).tolist()
    return read


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _processes(batch: Batch, missing: str) -> list[ExecId]:
    """The process of each row. Raises ValueError with `missing` as its text when a row has none."""
    found = []
    for raw in batch.raw("exec_id").tolist():
        identity = read_exec_id(raw)
        if identity is None:
            raise ValueError(missing)
        found.append(identity)
    return found


def _credentials(batch: Batch) -> list[Credentials]:
    return [Credentials(*row) for row in zip(*(numbers(batch, name) for name in _CREDENTIALS), strict=True)]


# Connections that were made, accepted or closed, and DNS lookups.


_NOT_COUNTED = (1 << 64) - 1
_ENDS = ("local", "local_port", "remote", "remote_port")


def connection_events(batch: Batch) -> Sequence[Sequence[ConnectionEvent]]:
    """One event for each row of trace tcp with a known process. The source is the end that connected, if that is
    known."""
    rows = zip(
        values(batch, "operation"),
        batch.raw("exec_id").tolist(),
        numbers(batch, "tid"),
        values(batch, "initiator"),
        zip(*(values(batch, name) for name in _ENDS), strict=True),
        values(batch, "error"),
        *(map(_known, numbers(batch, name)) for name in ("sent", "received", "duration")),
        values(batch, "comm"),
        peers_of(batch, "remote"),
        strict=True,
    )
    found: list[Sequence[ConnectionEvent]] = []
    for operation, process, tid, initiator, ends, error, sent, received, duration, comm, peer in rows:
        identity, local, remote = read_exec_id(process), ends[:2], ends[2:]
        if identity is None or not remote[1]:
            found.append([])
            continue
        source, target = (remote, local) if initiator == "other end" else (local, remote)
        event = ConnectionEvent(
            operation=operation,
            process=identity,
            tid=tid,
            protocol="TCP",
            source=source,
            target=target,
            flow_id=community_id("TCP", source, target),
            error=error or "",
            sent=sent,
            received=received,
            duration=duration,
            comm=comm,
            peer=peer,
            is_called=source is remote,
        )
        found.append([event])
    return found


def dns_events(batch: Batch) -> Sequence[Sequence[ConnectionEvent]]:
    """One event for each row of trace dns from the side that asks."""
    ends = ("client", "client_port", "server", "server_port")
    rows = zip(
        batch.raw("exec_id").tolist(),
        numbers(batch, "tid"),
        zip(*(values(batch, name) for name in ends), strict=True),
        map(_known, numbers(batch, "latency")),
        *(values(batch, name) for name in ("role", "protocol", "name", "type", "rcode", "addresses", "comm")),
        peers_of(batch, "server"),
        strict=True,
    )
    found: list[Sequence[ConnectionEvent]] = []
    for process, tid, addresses, latency, role, protocol, name, type, rcode, answers, comm, peer in rows:
        identity, source, target = read_exec_id(process), addresses[:2], addresses[2:]
        if identity is None or role != "client":
            found.append([])
            continue
        event = ConnectionEvent(
            operation="dns",
            process=identity,
            tid=tid,
            protocol=protocol,
            source=source,
            target=target,
            flow_id=community_id(protocol, source, target),
            duration=latency,
            name=name or "",
            type=type,
            rcode=rcode,
            answers=tuple(answers or ()),
            comm=comm,
            peer=peer,
        )
        found.append([event])
    return found


def _known(number: int) -> int | None:
    return None if number == _NOT_COUNTED else number


# Policies: which one matched, the arguments, and the action taken.


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
"""True if a pod, by UID and NAMESPACE/NAME, has the labels for some scopes; None: not known yet."""


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
