"""What a flow is, and what is told of it. Plain data.

A flow is what a client and a server exchange: one TCP connection, or the UDP packets between two addresses and ports.
Numbers are counted from the client: `sent` is what went to the server. The trap: a flow may be seen from both ends, on
two nodes; it is still one.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from kubectl_gadget.events.community_id import community_id

Verdict = Literal["FORWARDED", "DROPPED", "ERROR"]
Entity = Literal["pod", "service", "node", "name", "world", "loopback"]

FORWARDED: Verdict = "FORWARDED"
DROPPED: Verdict = "DROPPED"
ERROR: Verdict = "ERROR"
"""The process saw it fail: refused, timed out, no route."""


@lru_cache(65536)
def is_loopback(ip: str) -> bool:
    """Whether what is sent there never leaves the network namespace."""
    return ipaddress.ip_address(ip).is_loopback


@dataclass(frozen=True)
class Workload:
    """What made a pod, such as Deployment web."""

    kind: str
    name: str


@dataclass(frozen=True)
class PodFacts:
    """What the cluster knows of a pod."""

    namespace: str
    name: str
    labels: tuple[str, ...] = ()
    """key=value"""
    workload: Workload | None = None
    node: str = ""


@dataclass(slots=True)
class Party:
    """One end of a flow, as far as it is known."""

    ip: str
    port: int
    entity: Entity = "world"
    pod: PodFacts | None = None
    container: str = ""
    service: str = ""
    """NAMESPACE/NAME of the service whose address this is"""
    names: tuple[str, ...] = ()
    """DNS names that the other end asked for and got this address"""
    node: str = ""
    pid: int | None = None
    comm: str = ""
    exec_id: str = ""
    """which program of which process, as observe names it"""
    user_pid: int | None = None
    """another process that sends over the socket: it was passed it, or inherited it"""
    user_comm: str = ""

    @property
    def name(self) -> str:
        """How people call it, without port and process: pod, service, node, DNS name or address."""
        if self.pod is not None:
            return f"{self.pod.namespace}/{self.pod.name}"
        if self.service:
            return self.service
        if self.entity == "node" and self.node:
            return self.node
        return self.names[0] if self.names else f"[{self.ip}]" if ":" in self.ip else self.ip

    @property
    def place(self) -> str:
        """The name with the port, where there is one: ICMP has none."""
        return f"{self.name}:{self.port}" if self.port else self.name

    @property
    def process(self) -> str:
        """`curl 4711`; empty when it is not known. Who made the socket, and who else uses it."""
        if not self.pid:
            return ""
        user = f", used by {self.user_comm} {self.user_pid}" if self.user_pid else ""
        return f"{self.comm} {self.pid}{user}"


@dataclass(slots=True)
class Flow:
    """One flow; `client` is who began, as far as that is known (`oriented`)."""

    protocol: str
    client: Party
    server: Party
    oriented: bool
    first: str
    """RFC 3339"""
    backend: Party | None = None
    """the pod that a service's address became"""
    sent: int = 0
    received: int = 0
    sent_packets: int = 0
    received_packets: int = 0
    retransmits: int = 0
    rtt_ns: int | None = None
    seen_by: set[str] = field(default_factory=set)
    """client, server"""
    ended: str = ""
    """when, once one end has said so"""
    on_map: Any = None
    """where the map has counted it, and how much (graph.py)"""
    cached_id: tuple[Any, str] | None = None
    """and the ends that it was made of"""

    @property
    def id(self) -> str:
        """Its Community ID, which other tools give it as well, of the addresses that the client sees. A port that is
        used again gives the same; `first` tells those apart."""
        key = (self.protocol, (self.client.ip, self.client.port), (self.server.ip, self.server.port))
        if self.cached_id is None or self.cached_id[0] != key:
            self.cached_id = key, community_id(*key)
        return self.cached_id[1]

    @property
    def is_internal(self) -> bool:
        """Whether it stays within one pod, or one host."""
        client, server = self.client, self.backend or self.server
        if client.ip == server.ip or is_loopback(client.ip):
            return True
        return client.pod is not None and client.pod == server.pod

    @property
    def closed(self) -> bool:
        return bool(self.ended)


@dataclass(slots=True)
class FlowEvent:
    """One line: something that became of a flow."""

    timestamp: str
    node: str
    kind: Literal["new", "report", "close", "error", "drop", "dns", "http", "packet"]
    flow: Flow
    verdict: Verdict
    summary: str
    is_reply: bool = False
    observer: str = ""
    """client or server: whose side saw it"""
    errno: str = ""
    drop_reason: str = ""
    duration_ns: int | None = None
    tcp_flags: tuple[str, ...] = ()
    l7: dict[str, Any] | None = None
