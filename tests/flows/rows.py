"""Rows as -o json has them, for tests of what is made of them."""

from typing import Any

from kubectl_gadget.flows.ends import EndReader, FlowEnd
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.kube.addresses import is_shared
from kubectl_gadget.rows.amounts import nanoseconds

_SIDES = {"this end": "client", "other end": "server"}
CLIENT, SERVER, SERVICE = ("10.1.0.2", 40000), ("10.2.0.3", 8080), ("10.96.0.9", 80)
XWING = {"node": "node-1", "namespace": "default", "pod": "xwing", "container": "spaceship", "pid": 11, "comm": "curl"}
DEATHSTAR = {
    "node": "node-2",
    "namespace": "empire",
    "pod": "deathstar",
    "container": "laser",
    "pid": 22,
    "comm": "httpd",
}
HOST = {"node": "node-1", "namespace": "", "pod": "", "container": "", "pid": 33, "comm": "kubelet"}


def tcp(
    operation: str,
    second: float,
    who: dict[str, Any] = XWING,
    local: tuple[str, int] = CLIENT,
    remote: tuple[str, int] = SERVER,
    **more: Any,
) -> dict[str, Any]:
    """A row of trace tcp; the client's unless `who` and the ends say otherwise."""
    initiator = {"syn": "this end", "connect": "this end", "accept": "other end"}.get(operation, "")
    row = {"event": "tcp", "timestamp": stamp(second), **who, "operation": operation, "errno": 0, "error": ""}
    ends = {"local": local[0], "local_port": local[1], "remote": remote[0], "remote_port": remote[1]}
    return row | ends | {"initiator": initiator, "end": "", "rtt": None, "duration": None} | more


def accepted(operation: str, second: float, **more: Any) -> dict[str, Any]:
    """The server's row of the same connection."""
    return tcp(operation, second, DEATHSTAR, SERVER, CLIENT, **more)


def udp(
    operation: str, second: float, who: dict[str, Any] = XWING, sent: int = 1, received: int = 0, **more: Any
) -> dict[str, Any]:
    """A row of trace udp, of packets of 10 bytes."""
    ends = {"local": CLIENT[0], "local_port": CLIENT[1], "remote": SERVER[0], "remote_port": SERVER[1]}
    row = {
        "event": "udp",
        "timestamp": stamp(second),
        **who,
        "operation": operation,
        "duration": 5,
        "protocol": "UDP",
    } | ends
    counts = {"sent_packets": sent, "received_packets": received, "sent": sent * 10, "received": received * 10}
    return row | counts | more


def dns(second: float, name: str, addresses: list[str], rcode: str = "NOERROR", **more: Any) -> dict[str, Any]:
    """A row of trace dns, of who asks."""
    ends = {"client": CLIENT[0], "client_port": 5353, "server": "10.96.0.10", "server_port": 53}
    answer = {"name": name, "type": "A", "rcode": rcode, "addresses": addresses, "latency": 1000, "role": "client"}
    sides = {"local": CLIENT[0], "local_port": 5353, "remote": "10.96.0.10", "remote_port": 53}
    return {"event": "dns", "timestamp": stamp(second), **XWING, "protocol": "UDP"} | ends | answer | sides | more


def http(second: float, target: str, status: int, **more: Any) -> dict[str, Any]:
    """A row of trace http, of who asks."""
    ends = {"local": CLIENT[0], "local_port": CLIENT[1], "remote": SERVER[0], "remote_port": SERVER[1]}
    said = {"role": "client", "method": "GET", "host": "deathstar", "target": target, "status": status, "latency": 2000}
    return {"event": "http", "timestamp": stamp(second), **XWING, "protocol": "HTTP/1.1"} | ends | said | more


def drop(
    second: float, reason: str | None, source: tuple[str, int] = CLIENT, target: tuple[str, int] = SERVER
) -> dict[str, Any]:
    """A row of trace tcpdrop from the server's node."""
    ends = {"source": source[0], "source_port": source[1], "destination": target[0], "destination_port": target[1]}
    return {
        "event": "tcpdrop",
        "timestamp": stamp(second),
        **DEATHSTAR,
        "reason": reason,
        "flags": "SYN",
        "protocol": "TCP",
    } | ends


def stamp(second: float) -> str:
    """A time of the first minute of 2026."""
    return f"2026-01-01T00:00:{second:012.9f}Z"


def icmp(operation: str, second: float, sent: int = 1, received: int = 0) -> dict[str, Any]:
    """A row of trace icmp."""
    row = udp(operation, second, sent=sent, received=received) | {
        "event": "icmp",
        "id": 77,
        "protocol": "ICMP",
        "type": "echo request",
    }
    del row["local_port"], row["remote_port"]
    return row


class RowTable(FlowTable):
    """Takes all rows in the form of -o json."""

    def add(self, row: dict[str, Any]) -> list[FlowEvent]:
        """The events from one row."""
        return self.add_all([end_of(self.ends, row) if row["event"] in ("tcp", "udp", "icmp") else row])


def end_of(reader: EndReader, row: dict[str, Any]) -> FlowEnd:
    """What EndReader reads of the columns of such a row."""

    def known(name: str) -> int:
        value = row.get(name)
        return -1 if value is None else value

    ping = row["event"] == "icmp"
    who, side = reader.who(row), _SIDES.get(row.get("initiator") or "", "")
    local = row.get("local") or "", row["id"] if ping else row.get("local_port", 0)
    remote = row.get("remote") or "", 0 if ping else row.get("remote_port", 0)
    client, server = (remote, local) if side == "server" else (local, remote)
    scope = who.scope if is_shared(client[0]) else ""
    return FlowEnd(
        event=row["event"],
        time_ns=nanoseconds(row["timestamp"]),
        who=who,
        operation=row.get("operation", ""),
        error=row.get("error") or "",
        side=side,
        key=(scope, row.get("protocol") or "TCP", *client, *server),
        how=row.get("end") or "",
        duration=known("duration"),
        rtt=known("rtt"),
        sent=known("sent"),
        received=known("received"),
        sent_packets=row.get("sent_packets") or row.get("sent_segments") or 0,
        received_packets=row.get("received_packets") or row.get("received_segments") or 0,
        retransmits=row.get("retransmits") or 0,
        sequence=row.get("initial_sequence") or 0,
        denied=(row["policy"], row.get("rule") or "") if row.get("policy") else None,
    )
