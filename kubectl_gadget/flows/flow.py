"""What a flow is, and what is told of it. Plain data.

A flow is what a client and a server exchange: one TCP connection, or the UDP packets between two addresses and ports.
Numbers are counted from the client: `sent` is what went to the server. The trap: a flow may be seen from both ends, on
two nodes; it is still one.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from kubectl_gadget.events.columns.amounts import bytes_text, duration_text
from kubectl_gadget.events.community_id import community_id
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.policy_events.body import rfc3339

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


def address_name(ip: str) -> str:
    """An address where a port may follow."""
    return f"[{ip}]" if ":" in ip else ip


@dataclass(frozen=True)
class PodFacts:
    """What the cluster knows of a pod."""

    namespace: str
    name: str
    labels: tuple[str, ...] = ()
    """key=value"""
    workload: Workload | None = None
    """None: nothing made it"""
    node: str = ""


@dataclass(eq=False, slots=True)
class Who:
    """Whose an end is: a process, and the container, pod and node that it runs in, or what the address is known for.

    Thousands of flows share one, so it is never changed; who knows more puts another one in its place.
    """

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
    address: str = ""
    """as people call it, of an end that is known by it alone"""
    scope: str = ""
    """node and pod: what tells apart addresses that many have at once, such as loopback's"""
    cached_place: Any = None
    """where it stands on the map (graph.py)"""
    cached_text: str | None = None
    """its members as JSON (records.py)"""

    @property
    def name(self) -> str:
        """Of the pod, service or node, a DNS name, or the address; empty when the address may be any."""
        if self.pod is not None:
            return f"{self.pod.namespace}/{self.pod.name}"
        if self.service:
            return self.service
        if self.entity == "node" and self.node:
            return self.node
        return self.names[0] if self.names else self.address

    def and_then(self, later: "Who") -> "Who":
        """What is known once a row of this end has told `later`, which wins; what it lacks stays as it was."""
        if self is NOBODY or (
            not (self.names or self.service)
            and (later.pod is not None or self.pod is None)
            and (later.pid or not self.pid)
            and (later.exec_id or not self.exec_id)
            and (later.user_pid or not self.user_pid)
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
            scope=later.scope,
        )


NOBODY = Who()
"""Of whom nothing is known."""


@dataclass(slots=True)
class Party:
    """One end of a flow, as far as it is known."""

    ip: str
    port: int
    who: Who = NOBODY
    told: Who | None = None
    """by the last row of this end"""

    @property
    def entity(self) -> Entity:
        return self.who.entity

    @property
    def pod(self) -> PodFacts | None:
        return self.who.pod

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names that the other end asked for and got this address."""
        return self.who.names

    @property
    def service(self) -> str:
        """NAMESPACE/NAME of the service whose address this is."""
        return self.who.service

    @property
    def node(self) -> str:
        return self.who.node

    @property
    def pid(self) -> int | None:
        return self.who.pid

    @property
    def comm(self) -> str:
        return self.who.comm

    @property
    def name(self) -> str:
        """How people call it, without port and process: pod, service, node, DNS name or address."""
        return self.who.name or address_name(self.ip)

    @property
    def place(self) -> str:
        """The name with the port, where there is one: ICMP has none."""
        return f"{self.name}:{self.port}" if self.port else self.name

    @property
    def process(self) -> str:
        """`curl 4711`; empty when it is not known. Who made the socket, and who else uses it."""
        who = self.who
        if not who.pid:
            return ""
        user = f", used by {who.user_comm} {who.user_pid}" if who.user_pid else ""
        return f"{who.comm} {who.pid}{user}"


@dataclass(slots=True)
class Flow:
    """One flow; `client` is who began, as far as that is known (`oriented`)."""

    protocol: str
    client: Party
    server: Party
    oriented: bool
    first_ns: int
    """wall time"""
    scope: str = ""
    """which network namespace, where both ends' addresses are in many of them"""
    backend: Party | None = None
    """the pod that a service's address became"""
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
    """when, once one end has said so"""
    translated: Any = None
    """the key (table.py) that it has at the server's end, where the client's address was translated on the way"""
    refusal: str = ""
    """the drop that said that nobody listens"""
    on_map: Any = None
    """where the map has counted it, and how much (graph.py)"""
    cached_id: tuple[Any, str] | None = None
    """and the ends that it was made of"""

    def see(self, side: str) -> None:
        """Notes that this side was seen."""
        if side == "client":
            self.by_client = True
        else:
            self.by_server = True

    @property
    def seen_by(self) -> set[str]:
        """client, server."""
        return {side for side, seen in (("client", self.by_client), ("server", self.by_server)) if seen}

    @property
    def id(self) -> str:
        """Its Community ID, which other tools give it as well, of the addresses that the client sees. A port that is
        used again gives the same; `first_ns` tells those apart."""
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
        one, other = client.who.pod, server.who.pod
        return one is not None and (one is other or one == other)

    @property
    def closed(self) -> bool:
        return self.ended_ns != 0


POLICY_DENIED = "POLICY_DENIED"
"""As drop reason; Hubble calls it so, too."""


class Denial(NamedTuple):
    """What `enforce --network-policy` refused by."""

    policies: tuple[str, ...]
    """by name; in the namespace of the pod that they apply to"""
    namespace: str
    direction: str
    """egress or ingress, of that pod"""
    rule: str = ""
    """the first one that is about the other end, and allows it other ports"""

    def text(self) -> str:
        """`policy deny-all/ingress`, and the rule."""
        words = f"policy {', '.join(self.policies)}/{self.direction}"
        return f"{words} (rule {self.rule} allows other ports)" if self.rule else words


class Traffic(NamedTuple):
    """A summary that is spelt when somebody reads it: how much went each way until then."""

    sent: int
    received: int
    how: str = ""
    """it ended"""
    duration_ns: int | None = None

    def text(self) -> str:
        """`FIN, 80B out, 1.17KiB in, 900µs`."""
        words = f"{bytes_text(self.sent)} out, {bytes_text(self.received)} in"
        if self.how:
            words = f"{self.how}, {words}"
        return words if self.duration_ns is None else f"{words}, {duration_text(self.duration_ns)}"


class FlowEvent(NamedTuple):
    """One line: something that became of a flow."""

    time_ns: int
    node: str
    kind: Literal["new", "report", "close", "error", "drop", "dns", "http", "packet"]
    flow: Flow
    verdict: Verdict
    said: "str | Traffic"
    is_reply: bool = False
    observer: str = ""
    """client or server: whose side saw it"""
    errno: str = ""
    drop_reason: str = ""
    duration_ns: int | None = None
    tcp_flags: tuple[str, ...] = ()
    l7: dict[str, Any] | None = None
    denial: Denial | None = None
    """by network policies of ours"""
    late: bool = False
    """it came after something younger had been written"""

    @property
    def timestamp(self) -> str:
        """RFC 3339, in UTC with nanoseconds."""
        return rfc3339(self.time_ns)

    @property
    def summary(self) -> str:
        """What became of it, for people."""
        return self.said if isinstance(self.said, str) else self.said.text()


make_event: Callable[[tuple[Any, ...]], FlowEvent] = partial(tuple.__new__, FlowEvent)
make_traffic: Callable[[tuple[int, int, str, int | None]], Traffic] = partial(tuple.__new__, Traffic)
"""Of all members in their order, at half the time: there may be a hundred thousand a second."""
