"""An event of a policy: a hook was hit and one of the policy's selectors matched."""

import base64
from collections.abc import Iterator
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Literal

from kubectl_gadget.wire.policy_events.exec_id import ExecId

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


def _endpoint(address: Any, port: Any) -> str:
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
class EventHead:
    """What all events of one selector have in common."""

    hook: Hook
    _: KW_ONLY
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
class PolicyEvent(EventHead):
    """A hook of a policy was hit and one of its selectors matched."""

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


def event_spec(event: PolicyEvent) -> dict[str, Any]:
    """The event as JSON for read_event(), without `comm`, which is in the head of its record."""
    found = asdict(event)
    del found["comm"]
    return found


def read_event(value: dict[str, Any], comm: str) -> PolicyEvent:
    """The event from the JSON of event_spec(). Raises KeyError or TypeError."""
    lists: dict[str, Any] = {
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
