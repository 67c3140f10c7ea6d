"""Flows and their events. Plain data.

A flow is what a client and a server exchange: one TCP connection, or the UDP packets between two addresses and ports.
Numbers are seen from the client: `sent` is what went to the server. A flow may be seen from both ends, on two nodes; it
is still one flow.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from kubectl_gadget.kube.addresses import PodFacts
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.peers import community_id
from kubectl_gadget.wire.policy_events import rfc3339

Verdict = Literal["FORWARDED", "DROPPED", "ERROR"]
EventKind = Literal["new", "report", "close", "error", "drop", "dns", "http", "packet"]
Entity = Literal[
    "pod", "ended pod", "no pod", "service", "node", "kubelet", "kube-apiserver", "name", "world", "loopback"
]
"""As kinds of peers (kube/addresses.py); "name": known to DNS only, and loopback contains all shared addresses."""

FORWARDED: Verdict = "FORWARDED"
DROPPED: Verdict = "DROPPED"
ERROR: Verdict = "ERROR"
"""The process saw the flow fail: refused, timed out, no route."""


_bytes_text = lru_cache(4096)(bytes_text)


@lru_cache(65536)
def is_loopback(ip: str) -> bool:
    """True if packets to this address never leave the network namespace."""
    return ipaddress.ip_address(ip).is_loopback


def address_name(ip: str) -> str:
    """The text of an address to which a port can be appended."""
    return f"[{ip}]" if ":" in ip else ip


@dataclass(eq=False, slots=True)
class Who:
    """The owner of an end: a process and its container, pod and node, or whatever is known about the address.

    Thousands of flows share one object, so it is never modified; an update replaces it.
    """

    entity: Entity = "world"
    pod: PodFacts | None = None
    container: str = ""
    service: str = ""
    """NAMESPACE/NAME of the service whose address this is"""
    names: tuple[str, ...] = ()
    """DNS names that the other end looked up and that resolved to this address"""
    node: str = ""
    pid: int | None = None
    comm: str = ""
    exec_id: str = ""
    """identifies one program of one process, as in the output of observe"""
    user_pid: int | None = None
    """another process that sends over the socket, which it inherited or received"""
    user_comm: str = ""
    socket: str = ""
    """packet or xdp if the process sends packets with its own headers by a socket of this kind; else empty"""
    address: str = ""
    """the text to show when an end is known by its address alone"""
    scope: str = ""
    """node and pod: distinguishes addresses that many have at the same time, such as loopback addresses"""
    cached_place: Any = None
    """its place on the map (map.py)"""
    cached_text: str = ""
    """its members as JSON (records.py), unless they have to be escaped"""

    @property
    def name(self) -> str:
        """The name of the pod, service or node, a DNS name, or the address; empty when nothing at all is known."""
        if self.pod is not None:
            return f"{self.pod.namespace}/{self.pod.name}"
        if self.entity in ("kubelet", "kube-apiserver"):
            return self.entity
        if self.service:
            return self.service
        if self.entity == "node" and self.node:
            return self.node
        return self.names[0] if self.names else self.address

    @property
    def process(self) -> str:
        """`curl 4711`: the process that created the socket, and another one that uses it; empty when unknown."""
        if not self.pid:
            return ""
        user = f", used by {self.user_comm} {self.user_pid}" if self.user_pid else ""
        user += f", {self.socket} socket" if self.socket else ""
        return f"{self.comm} {self.pid}{user}"

    def and_then(self, later: "Who") -> "Who":
        """This object, updated by `later`, which a newer row of this end provided; what `later` lacks is kept."""
        if self is UNKNOWN_OWNER or (
            not (self.names or self.service)
            and (later.pod is not None or self.pod is None)
            and (later.pid or not self.pid)
            and (later.exec_id or not self.exec_id)
            and (later.user_pid or not self.user_pid)
            and (later.socket or not self.socket)
            and (later.entity != "world" or self.entity == "world")
        ):
            return later
        process, user = later if later.pid else self, later if later.user_pid else self
        return Who(
            entity=self.entity if later.entity == "world" else later.entity,
            pod=later.pod or self.pod,
            container=later.container,
            service=self.service,
            names=self.names,
            node=later.node,
            pid=process.pid,
            comm=process.comm,
            exec_id=process.exec_id or self.exec_id,
            user_pid=user.user_pid,
            user_comm=user.user_comm,
            socket=later.socket or self.socket,
            scope=later.scope,
        )


UNKNOWN_OWNER = Who()
"""Nothing is known."""


@dataclass(slots=True)
class Party:
    """One end of a flow."""

    ip: str
    port: int
    who: Who = UNKNOWN_OWNER
    reported: Who | None = None
    """the owner according to the last row of this end"""

    @property
    def name(self) -> str:
        """The name for people, without port and process: pod, service, node, DNS name or address."""
        return self.who.name or address_name(self.ip)

    @property
    def place(self) -> str:
        """The name with the port, if there is one: ICMP has none."""
        return f"{self.name}:{self.port}" if self.port else self.name


@dataclass(slots=True)
class Flow:
    """One flow; `client` is the end that began it, if that is known (`oriented`)."""

    protocol: str
    client: Party
    server: Party
    oriented: bool
    first_ns: int
    """wall time"""
    scope: str = ""
    """identifies the network namespace when both addresses exist in many of them"""
    backend: Party | None = None
    """the pod to which a service's address led"""
    sent: int = 0
    received: int = 0
    sent_packets: int = 0
    received_packets: int = 0
    retransmits: int = 0
    rtt_ns: int | None = None
    by_client: bool = False
    """the client's end was seen"""
    by_server: bool = False
    ended_ns: int = 0
    """when it ended, as soon as one end has reported it; 0: it has not"""
    translated: Any = None
    """its key (joiner.py) at the server's end, when the client's address was translated on the way"""
    refusal: str = ""
    """the reason of the drop by which it is known that nothing listens there"""
    on_map: Any = None
    """where and how much the map has counted for it (map.py)"""
    cached_id: tuple[object, str] | None = None
    """the ID, and the ends from which it was computed"""

    def see(self, side: str) -> None:
        """Records that this side was seen."""
        if side == "client":
            self.by_client = True
        else:
            self.by_server = True

    @property
    def seen_by(self) -> set[str]:
        """The sides that were seen: client, server."""
        return {side for side, seen in (("client", self.by_client), ("server", self.by_server)) if seen}

    @property
    def id(self) -> str:
        """Its Community ID, which other tools compute as well, for the addresses that the client sees. A reused port
        gives the same ID; `first_ns` distinguishes these flows."""
        key = (self.protocol, (self.client.ip, self.client.port), (self.server.ip, self.server.port))
        if self.cached_id is None or self.cached_id[0] != key:
            self.cached_id = key, community_id(*key)
        return self.cached_id[1]

    @property
    def is_internal(self) -> bool:
        """True if it stays within one pod or one host."""
        client, server = self.client, self.backend or self.server
        if client.ip == server.ip or is_loopback(client.ip):
            return True
        one, other = client.who.pod, server.who.pod
        return one is not None and (one is other or one == other)

    @property
    def closed(self) -> bool:
        return self.ended_ns != 0


BEGINNINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "syn": ("SYN", ("SYN",)),
    "connect": ("established", ()),
    "accept": ("accepted", ("SYN",)),
    "open": ("open", ()),
}
"""Summary and flags of the event of a TCP connection that begins, by its row's operation."""
ENDINGS: dict[str, tuple[str, tuple[str, ...]]] = {"fin": ("FIN", ("FIN",)), "timeout": ("timeout", ())}
"""The same by how a connection ended; all other ways are a RESET."""
RESET = ("RST", ("RST",))

POLICY_DENIED = "POLICY_DENIED"
"""A drop reason; Hubble has the same name for it."""


class Denial(NamedTuple):
    """The policies and the rule by which `enforce --network-policy` rejected a packet or a call."""

    policies: tuple[str, ...]
    """names; the policies are in the namespace of the pod that they apply to"""
    namespace: str
    direction: str
    """egress or ingress, from the view of that pod"""
    rule: str = ""
    """the first rule that matches the other end but allows only other ports"""

    def text(self) -> str:
        """`policy deny-all/ingress`, and the rule."""
        words = f"policy {', '.join(self.policies)}/{self.direction}"
        return f"{words} (rule {self.rule} allows other ports)" if self.rule else words


class Traffic(NamedTuple):
    """A summary that becomes text only when it is read: how much went each way so far."""

    sent: int
    received: int
    how: str = ""
    """how it ended"""
    duration_ns: int | None = None

    def text(self) -> str:
        """`FIN, 80B out, 1.17KiB in, 900µs`."""
        words = f"{_bytes_text(self.sent)} out, {_bytes_text(self.received)} in"
        if self.how:
            words = f"{self.how}, {words}"
        return words if self.duration_ns is None else f"{words}, {duration_text(self.duration_ns)}"


class FlowEvent(NamedTuple):
    """One line of output: something that happened to a flow."""

    time_ns: int
    node: str
    kind: EventKind
    flow: Flow
    verdict: Verdict
    said: "str | Traffic"
    is_reply: bool = False
    observer: str = ""
    """client or server: the side that saw it"""
    errno: str = ""
    drop_reason: str = ""
    duration_ns: int | None = None
    tcp_flags: tuple[str, ...] = ()
    l7: dict[str, Any] | None = None
    denial: Denial | None = None
    """by a network policy that this program enforces"""
    late: bool = False
    """written after a younger event"""

    @property
    def timestamp(self) -> str:
        """RFC 3339, in UTC with nanoseconds."""
        return rfc3339(self.time_ns)

    @property
    def summary(self) -> str:
        return self.said if isinstance(self.said, str) else self.said.text()


REST = (None, None, False)
"""The last members of an event: no L7 members, not denied, not late."""
make_event: Callable[[tuple[object, ...]], FlowEvent] = partial(tuple.__new__, FlowEvent)
make_traffic: Callable[[tuple[int, int, str, int | None]], Traffic] = partial(tuple.__new__, Traffic)
"""Take all members in their order and need half the time: there may be a hundred thousand per second."""
