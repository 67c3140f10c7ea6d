"""Events of installed policies as lines of the agent's log: one JSON object each, in the schema of security events.

A line describes the process from its record, which the program filled in at that moment. Arguments and
working directory are not in it; they are read from /proc, and left out if the process runs another program by then.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kubectl_gadget.agent.bpf.ring import Ring, records
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.wire.agent_messages import ContainerNames
from kubectl_gadget.wire.policy_events import Object, PolicyEvent, known, pod_body, policy_body, rfc3339
from kubectl_gadget.wire.policy_record import RECORD, Found, Type, Value, read
from kubectl_gadget.wire.record_reader import HookReader

_DOCKER_CHARACTERS = 31
_IDS = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
_HEAD = struct.Struct("<QQIIIIII16s16sII")


class RecordHead(NamedTuple):
    """struct gadget_record."""

    timestamp: int
    cgroup: int
    pid: int
    tid: int
    ppid: int
    uid: int
    gid: int
    container_pid: int
    comm: bytes
    parent_comm: bytes
    marks: int
    unused: int


@dataclass(frozen=True)
class LoggedEvent:
    """One event of one policy, and its record."""

    policy: int
    """its number in the set"""
    head: RecordHead
    record: bytes
    event: PolicyEvent
    hook: HookReader
    found: Found


class FreshRecords:
    """The settled records of a ring that no reaction has processed yet. They are read long before they are sent, so the
    ring does not advance here."""

    def __init__(self) -> None:
        self._seen = 0

    def of(self, ring: Ring) -> Iterator[bytes]:
        """Yields the records since the last call, up to the settled position. Callers must consume it to the end."""
        start = ring.position
        batch = ring.batch()
        try:
            fresh = batch[max(0, self._seen - start) :]
            self._seen = start + len(batch)
            yield from records(fresh)
            fresh.release()
        finally:
            batch.release()


def events(record: bytes, hooks: Mapping[int, HookReader]) -> Iterator[LoggedEvent]:
    """Yields the events of one record; `hooks` are by number."""
    head = RecordHead(*_HEAD.unpack_from(record))
    found = read(record, lambda number: hooks[number].forms)
    hook = hooks[found.hook]
    for selector, event in hook.events(found, head.tid):
        yield LoggedEvent(selector.policy, head, record[:RECORD], event, hook, found)


def line(logged: LoggedEvent, container: ContainerNames | None, node: str, boot_offset: int) -> str:
    """Returns the line, without a newline. `boot_offset` is wall time minus boot time, in ns."""
    body: Object = {"process": _process(logged, container, node), "parent": _parent(logged, node)}
    body |= policy_body(logged.event)
    time = rfc3339(logged.head.timestamp + boot_offset)
    envelope = {f"process_{logged.event.hook}": body, "node_name": node, "time": time}
    return json.dumps(envelope, separators=(",", ":"))


def _process(logged: LoggedEvent, container: ContainerNames | None, node: str) -> Object:
    head, found = logged.head, logged.found
    binary = _path(logged.hook.of_process(found, Type.BINARY)) or found.caller.comm
    arguments, directory = _from_proc(head.pid, binary)
    process: Object = {
        "exec_id": found.exec.text(node),
        "pid": head.pid,
        "tid": head.tid,
        "uid": head.uid,
        "cwd": directory,
        "binary": binary,
        "arguments": arguments,
        "parent_exec_id": found.parent.text(node) if found.parent.started else None,
    }
    if container is not None:
        process["docker"] = container.id[:_DOCKER_CHARACTERS]
        names = (container.image, container.runtime, container.id)
        process["pod"] = pod_body(container.to_json(), *names, head.container_pid)
    process["process_credentials"] = {name: getattr(found.caller.credentials, name) for name in _IDS}
    return known(process)


def _parent(logged: LoggedEvent, node: str) -> Object | None:
    parent = logged.found.parent
    if not parent.started:
        return None
    binary = _path(logged.hook.of_process(logged.found, Type.PARENT_BINARY)) or _text(logged.head.parent_comm)
    return {"exec_id": parent.text(node), "pid": parent.pid, "binary": binary}


def _path(value: Value | None) -> str:
    return "" if value is None or value.unreadable else value.text.decode("utf-8", "replace")


def _text(comm: bytes) -> str:
    return comm.partition(b"\0")[0].decode("utf-8", "replace")


def _from_proc(pid: int, binary: str) -> tuple[str, str]:
    """Returns arguments and working directory, if the program still runs."""
    words = procfs.command_line(pid)
    directory = procfs.link(f"/proc/{pid}/cwd")
    if procfs.link(f"/proc/{pid}/exe") != binary:
        return "", ""
    # One file may contain many programs (busybox); then the first argument names the program.
    return " ".join(words[os.path.basename(words[0]) == os.path.basename(binary) :]), directory
