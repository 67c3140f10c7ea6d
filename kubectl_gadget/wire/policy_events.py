"""Events of policies, as client and agents know them, and their JSON.

It uses only the standard library, since agents write events of installed policies to their log.
"""

import base64
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

_EXEC = struct.Struct("<QI")
_EXEC_BYTES = 16
"""sizeof(gadget_exec_id)"""


class ExecId(NamedTuple):
    """One program of one process on one node."""

    started: int
    pid: int

    def text(self, node: str) -> str:
        """The ID in output: base64 of NODE:STARTED:PID, the form that consumers of security events know."""
        return base64.b64encode(f"{node}:{self.started}:{self.pid}".encode()).decode()


def read_exec_id(field: bytes) -> ExecId | None:
    """Reads the field of a record; None if there is no process, or if it is outside of the node.

    Note: numpy drops trailing NULs of a field, so its bytes may be shorter than the struct.
    """
    started, pid = _EXEC.unpack_from(field.ljust(_EXEC_BYTES, b"\0"))
    return ExecId(started, pid) if started else None


# Events: a hook was hit and one of the policy's selectors matched.


_UNKNOWN = 0xFFFFFFFF

Hook = Literal["kprobe", "tracepoint", "uprobe", "usdt", "lsm", "loader"]
"""As in the JSON after `process_`. It does not depend on the way: to readers, fentry on a function is a kprobe."""


@dataclass(frozen=True)
class Credentials:
    """A thread's users, groups and capabilities (as bits) at one time."""

    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    securebits: int
    permitted: int
    effective: int
    inheritable: int


@dataclass(frozen=True)
class EventArgument:
    """One argument of a hook. `kind` is the name in JSON without `_arg`: int, string, file, sock, …; `value` is the
    value in JSON: for a file {"path": …, "permission": …}, for a sock {"family": …, "saddr": …, …}."""

    kind: str
    value: Any
    label: str = ""

    @property
    def text(self) -> str:
        """The value for people: a file's path, an int's number."""
        value = self.value
        if self.kind in ("bytes", "truncated_bytes"):
            data = value["bytes_arg"] if isinstance(value, dict) else value
            return base64.b64decode(data).decode("utf-8", "backslashreplace")
        if self.kind == "error":
            return "-"
        if self.kind in ("sock", "skb"):
            endpoints = [_endpoint(value.get(address), value.get(port)) for address, port in _ENDPOINTS]
            return f"{str(value.get('protocol', '')).removeprefix('IPPROTO_').lower()} {' -> '.join(endpoints)}".strip()
        if self.kind == "sockaddr" and value.get("family") != "AF_UNIX":
            return _endpoint(value.get("addr"), value.get("port"))
        if isinstance(value, dict):
            return str(value.get("path") or value.get("addr") or value.get("name") or " ".join(_words(value)))
        return str(value)


_ENDPOINTS = (("saddr", "sport"), ("daddr", "dport"))


def _endpoint(address: object, port: object) -> str:
    text = str(address or "")
    return f"[{text}]:{port or 0}" if ":" in text else f"{text}:{port or 0}"


def _words(value: dict[str, Any]) -> Iterator[str]:
    """The values of all members, including nested ones."""
    for part in value.values():
        if isinstance(part, dict):
            yield from _words(part)
        else:
            yield ",".join(map(str, part)) if isinstance(part, list) else str(part)


@dataclass(frozen=True)
class StackEntry:
    """One frame of a stack; unknown members are empty or 0."""

    address: int = 0
    symbol: str = ""
    offset: int = 0
    module: str = ""


@dataclass(frozen=True)
class _Hooked:
    hook: Hook


@dataclass(frozen=True)
class _Occurrence(_Hooked):
    """Members that only a single event has. The bases are in this order, since Python 3.9 has no keyword-only members,
    and the required ones have to come first."""

    process: ExecId
    tid: int = 0
    symbol: str = ""
    """the kernel's name for `function`: `__x64_sys_read` for sys_read; empty: no other name"""
    args: tuple[EventArgument, ...] = ()
    data: tuple[EventArgument, ...] = ()
    returned: EventArgument | None = None
    blocked: bool = False
    """the attempted operation did not happen"""
    verdict: str = ""
    """what blocked it, for people: EPERM, SIGKILL"""
    kernel_stack: tuple[StackEntry, ...] = ()
    user_stack: tuple[StackEntry, ...] = ()
    credentials: Credentials | None = None
    """at the time of the event; None: as when the process began"""
    namespaces: tuple[int, ...] = ()
    """at the time of the event, as inode numbers; empty: as when the process began"""
    host_namespaces: int = _UNKNOWN
    """a bit for each namespace that is the node's own; all ones: unknown"""
    comm: str = ""
    """the thread's name"""
    ima_hash: str = ""
    file_id: str = ""
    """identifies a followed file, from open to the last close"""


@dataclass(frozen=True)
class EventHead(_Hooked):
    """The members that all events of one selector share."""

    function: str = ""
    """for kprobe and lsm the function, for uprobe the symbol, for usdt the name, for a tracepoint the event"""
    subsystem: str = ""
    """for a tracepoint the subsystem, for usdt the provider"""
    path: str = ""
    """for uprobe and usdt the file; for loader the mapped file, whose only argument is the `build_id`"""
    offset: int = 0
    reference_counter: int = 0
    policy: str = ""
    message: str = ""
    tags: tuple[str, ...] = ()
    action: str = "Post"
    """as in the policy: Post, Sigkill, Override, …"""
    return_action: str = ""
    would_be: str = ""
    """what the policy would do if its actions were enforced, for people: BLOCKED EPERM, SENT SIGKILL"""


@dataclass(frozen=True)
class PolicyEvent(EventHead, _Occurrence):
    """A hook of a policy was hit and one of its selectors matched."""


def event_spec(event: PolicyEvent) -> dict[str, object]:
    """The event as JSON for read_event(), without `comm`, which is in the head of its record."""
    found = asdict(event)
    del found["comm"]
    return found


def read_event(value: dict[str, Any], comm: str) -> PolicyEvent:
    """The event from the JSON of event_spec(). Raises KeyError or TypeError."""
    lists: dict[str, object] = {
        "process": ExecId(*value["process"]),
        "tags": tuple(value["tags"]),
        "namespaces": tuple(value["namespaces"]),
        "returned": EventArgument(**value["returned"]) if value["returned"] else None,
        "credentials": Credentials(**value["credentials"]) if value["credentials"] else None,
    }
    for name in ("args", "data"):
        lists[name] = tuple(EventArgument(**one) for one in value[name])
    for name in ("kernel_stack", "user_stack"):
        lists[name] = tuple(StackEntry(**one) for one in value[name])
    return PolicyEvent(**(value | lists), comm=comm)


# The JSON of an event, in the schema that readers of security events know: process_kprobe, process_lsm, … As in
# that schema, members without information are left out: empty texts and lists, and zeros other than a status.


Object = dict[str, Any]


def policy_body(event: PolicyEvent) -> Object:
    """All members except the process, its parent and its ancestors."""
    prefix = "LSM" if event.hook == "lsm" else "KPROBE"
    body: Object = _place(event)
    if event.hook != "loader":
        body["args"] = [_argument(item) for item in event.args]
    body["data"] = [_argument(item) for item in event.data]
    if event.returned is not None:
        body["return"] = _argument(event.returned)
    body["action"] = f"KPROBE_ACTION_{event.action.upper()}"
    if event.return_action and prefix == "KPROBE":
        body["return_action"] = f"KPROBE_ACTION_{event.return_action.upper()}"
    body["kernel_stack_trace"] = list(map(_frame, event.kernel_stack))
    body["user_stack_trace"] = list(map(_frame, event.user_stack))
    body |= {"policy_name": event.policy, "message": event.message, "tags": list(event.tags)}
    body |= {"ima_hash": event.ima_hash, "file_id": event.file_id}
    if event.blocked:
        body |= {"blocked": True, "verdict": event.verdict}
    body["would_be"] = event.would_be
    return known(body)


def _place(event: PolicyEvent) -> Object:
    if event.hook == "tracepoint":
        return {"subsys": event.subsystem, "event": event.function}
    if event.hook == "uprobe":
        offsets = {"offset": event.offset or None, "ref_ctr_offset": event.reference_counter or None}
        return {"path": event.path, "symbol": event.function, **offsets}
    if event.hook == "loader":
        id = next((str(one.value) for one in event.args if one.kind == "build_id"), "")
        # JSON of protocol buffers encodes bytes this way.
        return {"path": event.path, "buildid": base64.b64encode(bytes.fromhex(id)).decode()}
    if event.hook == "usdt":
        return {"path": event.path, "provider": event.subsystem, "name": event.function}
    return {"function_name": event.symbol or event.function}


def _argument(argument: EventArgument) -> Object:
    name = argument.kind if argument.kind in ("syscall_id",) else f"{argument.kind}_arg"
    return {name: argument.value, **({"label": argument.label} if argument.label else {})}


def _frame(frame: StackEntry) -> Object:
    found: Object = {"address": str(frame.address) if frame.address else None, "symbol": frame.symbol}
    return known({**found, "offset": str(frame.offset) if frame.symbol else None, "module": frame.module})


def pod_body(names: Object, image: str, runtime: str, container_id: str, pid: int | None = None) -> Object | None:
    """A process's `pod`; `names` has namespace, pod, pod_uid and container. None for processes outside of pods."""
    if not names["pod"]:
        return None
    container = {
        "id": f"{runtime}://{container_id}" if runtime else container_id,
        "name": names["container"],
        "image": known({"name": image}),
        "pid": pid,
    }
    found = {"namespace": names["namespace"], "name": names["pod"], "uid": names["pod_uid"]}
    return known({**found, "container": known(container)})


def rfc3339(wall_ns: int) -> str:
    """A time in UTC with nanoseconds, from nanoseconds since the epoch."""
    second, fraction = divmod(wall_ns, 1_000_000_000)
    return f"{_spelt(second)}.{fraction:09d}Z"


@lru_cache(1024)
def _spelt(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def known(members: Object) -> Object:
    """The members without those that carry no information."""
    return {name: value for name, value in members.items() if value or (value == 0 and value is not False)}
