"""Members of rows in the names of OpenTelemetry's semantic conventions; all others are `gadget.MEMBER`.

SCHEMA_URL names the conventions. A member keeps our name where the conventions mean something else by theirs.
Severities have the words of OpenTelemetry and the numbers of syslog.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.rows.texts import Texts
from kubectl_gadget.rows.vectors import Numbers

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

RESOURCE = {
    "namespace": "k8s.namespace.name",
    "pod": "k8s.pod.name",
    "pod_uid": "k8s.pod.uid",
    "container": "k8s.container.name",
    "container_id": "container.id",
    "image": "container.image.name",
    "runtime": "container.runtime.name",
}
"""Members of a row's container, which are attributes of its resource."""
LEFT_OUT = frozenset({"timestamp", "node", "cgroup", "traceparent", *RESOURCE})
"""Members that are no attributes of a record: the resource, and the record itself, have them."""

Attributes = Callable[[Any], Iterator[tuple[str, Any]]]
"""Makes attributes of a member's value, which is not null."""

_COMMON: Mapping[str, str] = {
    "pid": "process.pid",
    "ppid": "process.parent_pid",
    "container_pid": "process.vpid",
    "exe": "process.executable.path",
    "args": "process.command_args",
    "cwd": "process.working_directory",
    "euid": "process.user.id",
    "uid": "process.real_user.id",
    "suid": "process.saved_user.id",
    "comm": "thread.name",
    "tid": "thread.id",
    "error": "error.type",
    "local": "network.local.address",
    "local_port": "network.local.port",
    "remote": "network.peer.address",
    "remote_port": "network.peer.port",
    "remote_service": "service.peer.name",
    "server": "server.address",
    "server_port": "server.port",
    "client": "client.address",
    "client_port": "client.port",
}
_FILE = {"path": "file.path", "mode": "file.mode", "to": "gadget.to"}
_TLS = {
    "name": "tls.client.server_name",
    "cipher": "tls.cipher",
    "subject": "tls.server.subject",
    "issuer": "tls.server.issuer",
    "not_after": "tls.server.not_after",
    "not_before": "tls.server.not_before",
    "ciphers": "tls.client.supported_ciphers",
}
_OF_GADGETS: Mapping[str, Mapping[str, str]] = {
    "trace_open": _FILE,
    "trace_file": _FILE,
    "trace_fileuse": _FILE,
    "trace_fsslower": _FILE,
    "snapshot_file": _FILE,
    "top_file": _FILE,
    "trace_exit": {"code": "process.exit.code"},
    "trace_process": {"code": "process.exit.code"},
    "trace_dns": {"name": "dns.question.name", "addresses": "dns.answers"},
    "trace_http": {
        "method": "http.request.method",
        "status": "http.response.status_code",
        "request_bytes": "http.request.body.size",
        "response_bytes": "http.response.body.size",
        "agent": "user_agent.original",
        "grpc_status": "rpc.response.status_code",
    },
    "trace_sni": _TLS,
    "trace_tls": _TLS,
    # Sums of several connections: their other members have the common names.
    "flows": {
        "error": "gadget.error",
        "source.ip": "source.address",
        "source.port": "source.port",
        "destination.ip": "destination.address",
        "destination.port": "destination.port",
    },
}


def _transport(value: str) -> Iterator[tuple[str, str]]:
    yield "network.transport", value.lower()


def _family(value: str) -> Iterator[tuple[str, str]]:
    known = {"AF_INET": "ipv4", "AF_INET6": "ipv6"}.get(value)
    yield ("network.type", known) if known else ("gadget.family", value)


def _http_protocol(value: str) -> Iterator[tuple[str, str]]:
    name, _, version = value.partition("/")
    if name.lower() == "grpc":
        yield "rpc.system.name", "grpc"
        name, version = "http", "2"
    yield "network.protocol.name", name.lower()
    if version:
        yield "network.protocol.version", version


def _target(value: str) -> Iterator[tuple[str, str]]:
    path, question, query = value.partition("?")
    yield "url.path", path
    if question:
        yield "url.query", query


def _host(value: str) -> Iterator[tuple[str, object]]:
    name, colon, port = value.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) < 6 and not name.endswith(":"):
        yield "server.address", name.strip("[]")
        yield "server.port", int(port)
    else:
        yield "server.address", value.strip("[]")


def _tls_version(value: str) -> Iterator[tuple[str, str]]:
    yield "tls.protocol.name", "ssl" if value.startswith("SSL") else "tls"
    yield "tls.protocol.version", value.lstrip("TLSv ")


_MADE: Mapping[tuple[str, str], Attributes] = {
    ("trace_http", "protocol"): _http_protocol,
    ("trace_http", "target"): _target,
    ("trace_http", "host"): _host,
    ("trace_tls", "version"): _tls_version,
    ("trace_sni", "version"): _tls_version,
    ("", "protocol"): _transport,
    ("", "family"): _family,
}
"""By gadget, or for all, and member."""


def attribute_name(gadget: str, member: str) -> str:
    """Return the attribute that a member becomes, if its value stays as it is."""
    return _OF_GADGETS.get(gadget, {}).get(member) or _COMMON.get(member) or f"gadget.{member}"


def is_plain(gadget: str, member: str) -> bool:
    """Return True if a value becomes one attribute as it is."""
    return (gadget, member) not in _MADE and ("", member) not in _MADE


def attributes_of(gadget: str, member: str) -> Attributes:
    """Return what makes attributes of a member's values."""
    if not is_plain(gadget, member):
        return _MADE.get((gadget, member)) or _MADE["", member]
    name = attribute_name(gadget, member)

    def plain(value: object) -> Iterator[tuple[str, Any]]:
        yield name, value

    return plain


def resource_attributes(node: str, container: Mapping[str, str]) -> dict[str, str]:
    """Return the resource of a container on a node, or of the node itself. `container` has members of RESOURCE.

    The name of the service is the container's: of the names that the conventions try in turn it is the one that
    a row has and that all replicas of a workload share."""
    found = {RESOURCE[name]: value for name, value in container.items() if value}
    found["host.name"] = node
    if container.get("pod"):
        found["k8s.node.name"] = node
        found["service.namespace"] = container.get("namespace", "")
        found["service.instance.id"] = ".".join(container.get(name, "") for name in ("namespace", "pod", "container"))
    found["service.name"] = container.get("container") or "kubectl-gadget"
    return {name: value for name, value in found.items() if value}


# Durations and traces

DURATIONS: Mapping[str, str] = {
    "trace_http": "latency",
    "trace_dns": "latency",
    "trace_tls": "duration",
    "trace_tcp": "duration",
    "trace_fsslower": "duration",
    "trace_exit": "run_time",
    "trace_process": "started",
}
"""By gadget, the member with the nanoseconds from a row's begin to its time, or with the time of its begin"""
_W3C = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""Trace context, level 1: https://www.w3.org/TR/trace-context/"""


def durations(batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the duration of each row in ns, and if it is known."""
    nothing = np.zeros(len(batch), np.int64), np.zeros(len(batch), np.bool_)
    if (name := DURATIONS.get(batch.gadget.name)) is None:
        return nothing
    if name == "started":
        # Of a process: from its start until its end.
        ends = np.array(member_values(batch, "operation"), object) == "exit"
        found = batch.raw_of_type("gadget_timestamp").astype(np.int64) - batch.raw("started").astype(np.int64)
        return np.maximum(found, 0), ends & (batch.raw("started") != 0)
    member = filter_members(batch.gadget)[name]
    vector = batch.vector(member.name, member.read)
    if not isinstance(vector, Numbers):
        return nothing
    known = vector.valid()
    return (
        np.where(True if known is None else known, vector.array, 0).astype(np.int64),
        np.ones(len(batch), np.bool_) if known is None else known,
    )


def member_values(batch: Batch, name: str) -> list[Any]:
    """Return the values of a member, by row; None where the gadget has no such member."""
    member = filter_members(batch.gadget).get(name)
    return [None] * len(batch) if member is None else batch.vector(name, member.read).values()


def trace_context(text: str | None) -> tuple[bytes, bytes, int] | None:
    """Return trace, span and flags of a request's header; None: it has none. Its sender chooses them."""
    if text is None or (found := _W3C.fullmatch(text)) is None:
        return None
    return bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3], 16)


# Severities


class Level(NamedTuple):
    """One severity."""

    text: str
    syslog: int


LEVELS = (Level("INFO", 6), Level("WARN", 4), Level("ERROR", 3))
_WARN, _ERROR = 1, 2
_BAD = {
    "trace_oomkill": _ERROR,
    "trace_deadlock": _ERROR,
    "trace_tcpdrop": _WARN,
    "trace_tcpretrans": _WARN,
    "audit_seccomp": _WARN,
    "network_policy": _WARN,
}
"""Gadgets each of whose rows is bad."""
_FAILURES = {"errno": 0, "error": 0, "rcode_raw": 0, "signal_raw": 0, "grpc_status_raw": 0}
"""Numbers that say that something failed, if they are another than this one. Flows have a number named `error`."""
_SIGNAL_IS_WORK = "trace_signal"
_GOOD_VERDICTS = ("FORWARDED", "allowed", "")


def levels(batch: Batch) -> npt.NDArray[np.int8]:
    """Return the place of each row's severity in LEVELS."""
    found = np.full(len(batch), _BAD.get(batch.gadget.name, 0), np.int8)
    members = filter_members(batch.gadget)

    def vector(name: str) -> object:
        member = members.get(name)
        return None if member is None else batch.vector(name, member.read)

    for name, good in _FAILURES.items():
        if name == "signal_raw" and batch.gadget.name == _SIGNAL_IS_WORK:
            continue
        column = vector(name)
        if isinstance(column, Numbers):
            bad = column.array != good
            if (known := column.valid()) is not None:
                bad &= known
            found = np.maximum(found, bad.astype(np.int8) * np.int8(_WARN))
    status = vector("status")
    if isinstance(status, Numbers) and batch.gadget.name == "trace_http":
        known = status.valid()
        code = status.array if known is None else np.where(known, status.array, 200)
        found = np.maximum(found, np.where(code >= 500, _ERROR, np.where((code >= 400) | (code == 0), _WARN, 0)))
    for name in ("verdict", "alert"):
        column = vector(name)
        if isinstance(column, Texts) and not column.absent():
            bad = column.test(lambda text: text not in _GOOD_VERDICTS)
            found = np.maximum(found, bad.astype(np.int8) * np.int8(_WARN))
    return found.astype(np.int8)
