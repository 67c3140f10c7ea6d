"""One JSON object for each event, in the schema that readers of security events know: process_exec, …

As in that schema, members without information are left out: empty texts and lists, and zeros other than a status. Kinds
and members of our own (process_file, blocked, file_id) are added to the known ones, and are left out of the strict form
(`strict_body`). Texts may contain bytes that are not UTF-8; they become U+FFFD.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import Pod, PodValues
from kubectl_gadget.kube.resources import PODS
from kubectl_gadget.linux.names import NAMESPACE_KINDS, device_number_text, open_flag_names, signal_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent, event_type
from kubectl_gadget.observe.processes import Process
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.output.row_texts import LATE
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.vectors import exact
from kubectl_gadget.wire import kernel_enums
from kubectl_gadget.wire.policy_events import Credentials, Object, known, pod_body, policy_body, rfc3339

_DOCKER_CHARACTERS = 31
_MOST_ANCESTORS = 32
_PRIVILEGES = (
    (1, "PRIVILEGES_RAISED_EXEC_FILE_SETUID"),
    (2, "PRIVILEGES_RAISED_EXEC_FILE_SETGID"),
    (4, "PRIVILEGES_RAISED_EXEC_FILE_CAP"),
)
_ALL_BITS = 0xFFFFFFFF


Details = Callable[[Container], Object]
"""Returns further members for the `pod` of a container."""


def gap_message(node: str, seconds: float, until_ns: int) -> str:
    """Return the line for a period without a node's events."""
    return json.dumps({"gap_seconds": seconds, "node_name": node, "time": rfc3339(until_ns)}, separators=(",", ":"))


def message(entry: StoryEvent, ancestors: bool = False, details: Details | None = None, *, strict: bool = False) -> str:
    """The object as one line, without a line end. `ancestors`: includes all known ancestors above the parent. `strict`:
    only members that the schema has; the event's kind must be one of the schema's."""
    happening = entry.happening
    body: Object = {"process": _process(entry), "parent": _parent(entry)}
    if ancestors:
        above = islice(entry.process.ancestors(), 1, _MOST_ANCESTORS)
        body["ancestors"] = [_program(process) for process in above]
    if details:
        _add_details(body, entry.process, details)
    if isinstance(happening, ProcessEvent):
        body |= _end(entry, happening)
    elif isinstance(happening, FileEvent):
        body |= _file(happening)
    elif isinstance(happening, ConnectionEvent):
        body |= _connection(happening)
    else:
        body |= policy_body(happening)
    kind = event_type(happening)
    if strict:
        body = strict_body(kind, body)
    envelope: Object = {kind: body, "node_name": entry.node, "time": rfc3339(entry.time)}
    if entry.late and not strict:
        envelope[LATE] = True
    text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
    # Unprintable characters are escaped, so that they cannot affect a terminal.
    return text if text.isprintable() else json.dumps(_exact(envelope), separators=(",", ":"))


def _add_details(body: Object, process: Process, details: Details) -> None:
    parent = process.parent
    above = [] if parent is None else [parent.container]
    containers = [
        process.container,
        *above,
        *(one.container for one in islice(process.ancestors(), 1, _MOST_ANCESTORS)),
    ]
    programs = [body["process"], *([body["parent"]] if above else []), *body.get("ancestors", ())]
    for program, container in zip(programs, containers, strict=False):
        if "pod" in program:
            program["pod"] |= details(container)


def _process(entry: StoryEvent) -> Object:
    """The process as it is at the time of the event."""
    event, process = entry.described, entry.process
    found = _program(process, entry.happening.tid)
    found["refcnt"] = entry.references
    if credentials := entry.credentials:
        found["uid"] = credentials.uid
        found["cap"] = _capabilities(credentials)
        found["ns"] = _namespaces(*entry.namespaces)
        found["process_credentials"] = _credentials(credentials, *entry.namespaces)
    if event is not None:
        found["auid"] = _ALL_BITS if event.auid is None else event.auid
        found["binary_properties"] = _properties(event, process)
    return known(found)


def _parent(entry: StoryEvent) -> Object | None:
    """The parent; None when it is unknown."""
    parent = entry.process.parent
    return None if parent is None else {**_program(parent), "refcnt": entry.parent_references}


def _program(process: Process, tid: int = 0) -> Object:
    """The part that does not change while the program runs."""
    event, container = process.event, process.container
    return known(
        {
            "exec_id": process.id.text(process.node),
            "pid": process.id.pid,
            "tid": tid or process.id.pid,
            "uid": event.credentials.uid if event else None,
            "cwd": process.cwd,
            "binary": process.binary,
            "arguments": process.arguments,
            "flags": " ".join(process.flags),
            "start_time": rfc3339(process.start) if process.start else None,
            "parent_exec_id": process.parent_id.text(process.node) if process.parent_id else None,
            "in_init_tree": process.in_init_tree,
            "docker": container.container_id[:_DOCKER_CHARACTERS],
            "pod": _pod(container, event),
        }
    )


def _pod(container: Container, event: ProcessEvent | None) -> Object | None:
    names = {name: getattr(container, name) for name in ("namespace", "pod", "pod_uid", "container")}
    pid = event.container_pid if event else None
    return pod_body(names, container.image, container.runtime, container.container_id, pid)


def _capabilities(credentials: Credentials) -> Object:
    sets: Object = kernel_enums.capability_sets(credentials.permitted, credentials.effective, credentials.inheritable)
    return sets


def _namespaces(numbers: dict[str, int], host: int | None) -> Object:
    found: Object = {}
    for bit, kind in enumerate(NAMESPACE_KINDS):
        if number := numbers.get(kind):
            found[kind] = kernel_enums.namespace(number, host is not None and bool(host >> bit & 1))
    return found


def _credentials(credentials: Credentials, namespaces: dict[str, int], host: int | None) -> Object:
    names = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
    found: Object = {name: getattr(credentials, name) for name in names}
    if credentials.securebits:
        found["securebits"] = kernel_enums.secure_bits(credentials.securebits)
    found["caps"] = _capabilities(credentials)
    if user := namespaces.get("user"):
        is_host = host is not None and bool(host >> NAMESPACE_KINDS.index("user") & 1)
        found["user_ns"] = {"ns": kernel_enums.namespace(user, is_host)}
    return found


def _properties(event: ProcessEvent, process: Process) -> Object | None:
    """Unusual properties of the executed file: privileges that it granted, no name left, or a name other than the one
    by which it was called."""
    found: Object = {}
    if event.gained & 1:
        found["setuid"] = event.credentials.euid
    if event.gained & 2:
        found["setgid"] = event.credentials.egid
    if names := [name for bit, name in _PRIVILEGES if event.gained & bit]:
        found["privileges_changed"] = names
    file: Object = {}
    if event.inode and not event.links:
        file["inode"] = {"number": str(event.inode), "links": event.links}
    if process.exe and (file or process.exe != process.binary):
        file["path"] = process.exe
    if file:
        found["file"] = file
    return found


def _end(entry: StoryEvent, event: ProcessEvent) -> Object:
    if event.operation != "exit":
        return {}
    ended = {"signal": signal_name(event.signal)} if event.signal else {"status": event.code}
    return {**ended, "time": rfc3339(entry.time)}


def _file(event: FileEvent) -> Object:
    file = {
        "path": event.path,
        "id": f"{event.file_id:x}",
        "inode": event.inode,
        "device": device_number_text(event.device),
    }
    found: Object = {"operation": event.operation.replace(" ", "_"), "file": known(file)}
    if event.operation in ("open", "is open"):
        found["flags"] = open_flag_names(event.flags)
    return known({**found, "bytes": event.bytes, "protection": event.protection})


def _connection(event: ConnectionEvent) -> Object:
    found: Object = {"protocol": event.protocol}
    for name, (ip, port) in (("source", event.source), ("destination", event.target)):
        found |= {f"{name}_ip": ip, f"{name}_port": port}
    if event.peer.kind:
        found["peer"] = {name: text for name, text in asdict(event.peer).items() if text}
    found |= {"flow_id": event.flow_id, "error": event.error, "duration_ns": event.duration}
    if event.operation == "dns":
        answer = {"names": [event.name], "qtypes": [event.type], "rcode": event.rcode, "ips": list(event.answers)}
        found["dns"] = known(answer)
    return known(found | {"sent_bytes": event.sent, "received_bytes": event.received})


def _exact(value: object) -> object:
    """The value with valid Unicode in all texts."""
    if isinstance(value, str):
        return exact(value)
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


# An event for strict readers of security events (`observe -o jsonpb`): only the members that its kind has there.


_ALL = ("process", "parent", "ancestors")
_POLICY = (*_ALL, "policy_name", "message", "tags", "args", "action")
MEMBERS: Mapping[str, frozenset[str]] = {
    "process_exec": frozenset(_ALL),
    "process_exit": frozenset((*_ALL, "signal", "status", "time")),
    "process_kprobe": frozenset(
        (*_POLICY, "function_name", "return", "return_action", "data", "kernel_stack_trace", "user_stack_trace")
    ),
    "process_tracepoint": frozenset((*_POLICY, "subsys", "event")),
    "process_uprobe": frozenset((*_POLICY, "path", "symbol", "offset", "ref_ctr_offset", "data")),
    "process_usdt": frozenset((*_POLICY, "path", "provider", "name")),
    "process_lsm": frozenset((*_POLICY, "function_name", "ima_hash")),
    "process_loader": frozenset((*_ALL, "path", "buildid")),
}
"""For each kind of event, its members."""
_WIDE = frozenset(("size_arg", "long_arg", "orig_size", "offset", "ref_ctr_offset"))
"""64-bit numbers."""


def strict_body(kind: str, body: Object) -> Object:
    """The body of an event of one of these kinds, without our own members."""
    return {name: _spelt(name, value) for name, value in body.items() if name in MEMBERS[kind] and value is not None}


def _spelt(name: str, value: object) -> object:
    if isinstance(value, dict):
        return {inner: _spelt(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_spelt(name, item) for item in value]
    return str(value) if name in _WIDE else value


# The cluster's data about pods beyond their names: labels and workloads. A user who may trace pods may not be allowed
# to list pods in all namespaces. Events of other pods lack these.


_FIRST_SECONDS = 20.0
_KEEP_SECONDS = 600.0
"""Deleted pods are kept for a while, because their events may arrive later."""


class PodDetails:
    """Details of pods, looked up by what containers report about their pods."""

    def __init__(self) -> None:
        self._known = PodValues[Object]()

    def take(self, found: Objects) -> None:
        """Replaces the pods by their present state. May be called from any thread."""
        self.prepare(found)()

    def prepare(self, found: Objects) -> Callable[[], object]:
        """Like `take`, but returns what makes the state visible."""
        known = PodValues[Object]()
        for pod in found.get(PODS, ()):
            known.put(pod, _details(pod))
        return partial(setattr, self, "_known", known)

    def of(self, container: Container) -> dict[str, object]:
        """Returns pod_labels, workload and workload_kind of the container's pod; nothing when the pod is not known."""
        return self._known.of(container.pod_uid, container.pod_name) or {}


def _details(found: Object) -> Object:
    pod = Pod.from_object(found)
    workload = pod.workload
    return {"pod_labels": pod.labels, "workload": workload.name, "workload_kind": workload.kind}


def followed(details: PodDetails) -> Follower:
    """Keeps the details up to date during a run."""
    return Follower(
        (PODS,),
        details.prepare,
        _FIRST_SECONDS,
        _KEEP_SECONDS,
        missing="some events lack labels and workloads of their pods",
        unchanged="labels and workloads of pods are not updated",
    )
