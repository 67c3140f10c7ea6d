"""Joins the network gadgets' rows, ordered by time over all nodes, to flows and their events.

A row is one end's view. The rows of both ends meet in one flow by its addresses and ports. If a service's address lies
between the ends, they meet by the client's address and port alone (ServiceClients); if the client's address was
translated, by the sequence number of the SYN (TranslatedClients). Rows of the two ends arrive in any order,
so the first one makes the event, and the other one only adds what it knows.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubectl_gadget.flows.ends import AddressBook, AddressPort, EndReader, FlowEnd, Key
from kubectl_gadget.flows.flow import (
    BEGINNINGS,
    DROPPED,
    ENDINGS,
    ERROR,
    FORWARDED,
    POLICY_DENIED,
    RESET,
    REST,
    Denial,
    Flow,
    FlowEvent,
    Party,
    Traffic,
    Who,
    make_event,
    make_traffic,
)
from kubectl_gadget.kube.addresses import OwnEnd, is_shared
from kubectl_gadget.rows.amounts import duration_text, nanoseconds

Row = Mapping[str, Any]

COLUMNS = (
    *("timestamp", "node", "namespace", "pod", "container", "pod_uid", "pid", "comm", "exec_id", "user_pid"),
    "family",
    *("user_comm", "local", "local_port", "remote", "remote_port", "reason", "flags", "stack", "source", "source_port"),
    *("destination", "destination_port", "direction", "length", "role", "protocol", "client", "client_port"),
    *("server", "server_port", "name", "type", "rcode", "addresses", "latency", "method", "host", "target"),
    *("status", "grpc_status", "grpc_status_raw", "reset", "error", "policy", "rule", "policy_direction", "location"),
)
"""The columns that are read from all gadgets but EndReader's: each column costs time for every row."""

MOST_FLOWS = 200_000
"""Beyond this number, the oldest flows are forgotten."""
MOST_ENDED = 50_000
"""Of ended flows, which are kept because the other end, or a drop, may still report something about them."""
_TIDYING = frozenset({"QUEUE_PURGE", "SKB_CONSUMED"})
"""Reasons that mean that a socket is closed, and not that something went wrong."""
_NO_REASON = ("NOT_SPECIFIED", "")
"""The reason of most drops before Linux 6.5, and of all before 5.17."""
_LAST_PACKETS = frozenset({"ACK", "FIN"})
"""The flags of the last packet of a handshake or of a connection."""
_DROPPING = ("nf_", "ip_", "ip6_", "ipv6_", "neigh_", "dev_", "__dev_")
"""Prefixes of kernel functions that free a packet only to drop it. TCP's functions also free those last packets, and
before Linux 5.13 the place is unknown."""
_ON_THE_WAY_OUT = frozenset(
    {"BPF_CGROUP_EGRESS", "TC_EGRESS", "QDISC_DROP", "QDISC_OVERLIMIT", "IP_OUTNOROUTES", "NEIGH_CREATEFAIL"}
)
"""Reasons that only packets on their way out have."""
_NO_ANSWER = "no answer"
_NO_LISTENER = "NO_SOCKET"
_REFUSED_CALL = "EPERM"
"""The reason for what a network policy rejected before there was a packet."""
_UNSPECIFIED = ("0.0.0.0", "::")
_HOOKS = {
    "ip_rcv": "prerouting",
    "ipv6_rcv": "prerouting",
    "ip_local_deliver": "input",
    "ip6_input": "input",
    "ip_forward": "forward",
    "ip6_forward": "forward",
    "__ip_local_out": "output",
    "__ip6_local_out": "output",
    "ip_output": "postrouting",
    "ip6_output": "postrouting",
    "ip_mc_output": "postrouting",
}
"""Netfilter's hooks, by the kernel functions that call them."""
_DNS_PORT = 53
_HTTP = ("method", "host", "target", "status", "latency", "protocol", "grpc_status", "grpc_status_raw", "reset")
_EPHEMERAL = 32768
"""The first port of Linux's default range for clients (ip_local_port_range)."""
_FRESH = frozenset({"syn", "accept"})


class FlowTable:
    """Takes rows and returns events. Rows of GADGETS are FlowEnd, others have the form of -o json plus `event`.
    Addresses are looked up in `book`."""

    def __init__(
        self, book: AddressBook, has_dns: bool = True, most: int = MOST_FLOWS, most_ended: int = MOST_ENDED
    ) -> None:
        self.has_dns = has_dns
        """there are rows of trace dns"""
        self.ends = EndReader(book)
        """reads the rows of GADGETS"""
        self._book = book
        self._most = most
        self._most_ended = most_ended
        self._flows: OrderedDict[Key, Flow] = OrderedDict()
        self._ended: deque[Flow] = deque()
        self._clients = ServiceClients(book)
        self._translated = TranslatedClients()
        self._senders: OrderedDict[Key, None] = OrderedDict()
        """directions whose packets the sender reports"""
        self.forgotten = 0
        """flows that were removed from memory before they ended"""

    def add_all(self, rows: Iterable[Row | FlowEnd]) -> list[FlowEvent]:
        """The events from these rows, in their order."""
        of_tcp, of_others = self._tcp, self._event_of
        return [
            event
            for row in rows
            if (event := of_tcp(row) if type(row) is FlowEnd and row.event == "tcp" else of_others(row)) is not None
        ]

    def _event_of(self, row: Row | FlowEnd) -> FlowEvent | None:
        if isinstance(row, FlowEnd):
            return self._packets(row)
        match row["event"]:
            case "tcpdrop":
                return self._drop(row)
            case "dns":
                return self._dns(row)
            case "http":
                return self._http(row)
            case "tcpdump":
                return self._packet(row)
        return None

    # --- TCP

    def _tcp(self, row: FlowEnd) -> FlowEvent | None:
        _, time_ns, who, operation, failed, side, key, _, duration, rtt, *_ = row
        if not side:
            side, key = self._oriented(row, "client")
        if not (key[5] if side == "client" else key[3]):
            return None  # the call failed before it had an address
        if row.denied and key[2] in _UNSPECIFIED:
            key = self._with_source(row, key)
        fresh = operation in _FRESH or (operation == "connect" and failed != "")
        flow, is_new = self._meet(row, key, side, fresh)
        if side == "client":
            flow.by_client = True
            if rtt >= 0:
                flow.rtt_ns = rtt
            if row.sequence and operation == "connect" and not flow.by_server:
                self._translated.note(row.sequence, flow)
        else:
            flow.by_server = True
        if operation == "close":
            return self._closed(row, flow, side)
        if failed:
            self._end(flow, time_ns)
            took = duration if duration >= 0 else None
            if row.denied:
                denial = Denial(_names(row.denied[0]), who.pod.namespace if who.pod else "", "egress", row.denied[1])
                words = f"{denial.text()}, {failed}"
                more = {"errno": failed, "duration_ns": took, "drop_reason": POLICY_DENIED, "denial": denial}
                return self._event(row, flow, "drop", DROPPED, words, side, **more)
            words, reason = (f"{failed}, {flow.refusal}", _NO_LISTENER) if flow.refusal else (failed, "")
            if row.how == _NO_ANSWER:
                words = f"no answer, {_syns(row.retransmits + 1)}, {failed}"
            more = {"errno": failed, "duration_ns": took, "drop_reason": reason}
            return self._event(row, flow, "error", ERROR, words, side, **more)
        if operation == "report":
            self._count(row, flow, side)
            if self._speaks(flow, side):
                if side == "client" and row.sent_packets and not row.received_packets:
                    said = f"{_syns(row.sent_packets)}, no answer"
                    return self._event(row, flow, "report", FORWARDED, said, side, tcp_flags=("SYN",))
                return self._event(row, flow, "report", FORWARDED, Traffic(flow.sent, flow.received), side)
        elif is_new:
            words, flags = BEGINNINGS[operation]
            return make_event(
                (time_ns, who.node, "new", flow, FORWARDED, words, False, side, "", "", None, flags, *REST)
            )
        return None

    def _with_source(self, row: FlowEnd, key: Key) -> Key:
        """The key with the address that a call would have sent from: a policy denied it before the kernel chose
        one."""
        source = self._book.address_of(row.who, ":" in key[4])
        return (_scope(row.who, source), key[1], source, *key[3:]) if source else key

    def _closed(self, row: FlowEnd, flow: Flow, side: str) -> FlowEvent | None:
        self._count(row, flow, side)
        if flow.ended_ns:
            return None
        self._end(flow, row.time_ns)
        how, flags = ENDINGS.get(row.how, RESET)
        duration = row.duration if row.duration >= 0 else None
        said = make_traffic((flow.sent, flow.received, how, duration))
        more = (False, side, row.error, "", duration, flags, *REST)
        return make_event((row.time_ns, row.who.node, "close", flow, FORWARDED, said, *more))

    def _count(self, row: FlowEnd, flow: Flow, side: str) -> None:
        """Updates a flow's counters. The larger number of the two ends is the later one."""
        sent, received, out, back = row[10:14]
        if side != "client":
            sent, received, out, back = received, sent, back, out
        flow.sent = max(flow.sent, sent)
        flow.received = max(flow.received, received)
        flow.sent_packets = max(flow.sent_packets, out)
        flow.received_packets = max(flow.received_packets, back)
        if side == "client" or not flow.by_client:
            flow.retransmits = row.retransmits

    # --- UDP and pings

    def _packets(self, row: FlowEnd) -> FlowEvent | None:
        protocol, is_ping = row.protocol, row.event == "icmp"
        began = row.operation == "first"
        side, key = self._oriented(row, "server", "client" if row.sent_packets and began else "")
        flow, is_new = self._meet(row, key, side, fresh=began)
        flow.see(side)
        flow.oriented = flow.oriented or began
        self._count(row, flow, side)
        if self.has_dns and protocol == "UDP" and flow.server.port == _DNS_PORT:
            if row.operation == "end" and not flow.closed:
                self._end(flow, row.time_ns)
            return None  # each question makes an event of its own
        match row.operation:
            case "first" if is_new:
                words = "echo request" if is_ping else protocol
                return self._event(row, flow, "new", FORWARDED, words, side)
            case "flow" if self._speaks(flow, side):
                return self._event(row, flow, "report", FORWARDED, Traffic(flow.sent, flow.received), side)
            case "end" if not flow.closed:
                self._end(flow, row.time_ns)
                said: str | Traffic = Traffic(flow.sent, flow.received, "end", row.duration)
                if is_ping:
                    counts = f"{flow.sent_packets} out, {flow.received_packets} in"
                    said = f"end, {counts}, {duration_text(row.duration)}"
                # No reply to any of the requests.
                silent = is_ping and not flow.received_packets
                verdict = ERROR if silent else FORWARDED
                return self._event(row, flow, "close", verdict, said, side, duration_ns=row.duration)
        return None

    # --- other rows

    def _drop(self, row: Row) -> FlowEvent | None:
        """A packet that the kernel dropped; it may belong to a flow or not."""
        source, target, protocol = _end(row, "source"), _end(row, "destination"), row["protocol"]
        who = self.ends.who(row)
        if row["reason"] == _REFUSED_CALL:
            return self._refused(row, who, _key(who, protocol, source, target))
        scope = _scope(who, source[0])
        outgoing = self._flows.get((scope, protocol, *source, *target))
        flow = outgoing or self._flows.get((scope, protocol, *target, *source))
        reason, flags = row["reason"] or "", tuple(filter(None, str(row.get("flags") or "").split("|")))
        if reason in _TIDYING or (
            # This is how the kernel frees the last packet of a handshake or of a closed connection.
            reason in _NO_REASON
            and flow
            and flags
            and _LAST_PACKETS.issuperset(flags)
            and not str(row.get("location") or "").startswith(_DROPPING)
        ):
            return None
        if flow is not None and flow.closed:
            return None  # left over from a connection that has ended
        if flow is None:
            flow = outgoing = Flow(protocol, Party(*source), Party(*target), True, nanoseconds(row["timestamp"]))
            is_sent = self._is_sent(row, who, flow.client)
            self._own(flow.client if is_sent else flow.server, who)
            self._name_others(flow)
        else:
            is_sent = self._is_sent(row, who, flow.client if outgoing else flow.server)
        words = [reason or "dropped", *_netfilter_hook(row)]
        said = " ".join([*words, f"({', '.join(flags)})"] if flags else words)
        denial = _denial(row)
        if denial:
            said, reason = denial.text(), POLICY_DENIED
            # The row belongs to the pod whose policies rejected the packet.
            owner = (flow.client, flow.server)[(denial.direction == "ingress") == (outgoing is flow)]
            if owner.reported is None:
                self._own(owner, who)
        if outgoing and flow.by_client and row["reason"] == _NO_LISTENER and flags == ("SYN",):
            flow.refusal = said
            return None  # the connecting process will report the error
        return self._row_event(
            row,
            flow,
            "drop",
            DROPPED,
            said,
            "client" if is_sent == (outgoing is not None) else "server",
            is_reply=outgoing is None,
            drop_reason=reason,
            tcp_flags=flags,
            denial=denial,
        )

    def _refused(self, row: Row, who: Who, key: Key) -> FlowEvent | None:
        """A datagram, or its socket's connect, that a policy rejected."""
        denied = row["policy"], row.get("rule") or ""
        time_ns = nanoseconds(row["timestamp"])
        return self._tcp(FlowEnd("udp", time_ns, who, "connect", _REFUSED_CALL, "client", key, denied=denied))

    def _is_sent(self, row: Row, who: Who, source: Party) -> bool:
        """True if the row's owner sent the packet, which `source` is the origin of: the kernel also drops packets on
        their way out."""
        if row.get("policy"):
            return bool(row["policy_direction"] == "egress")
        hook = "".join(_netfilter_hook(row))
        if hook == "output" or (hook == "postrouting" and who.pid):
            return True
        if hook in ("prerouting", "input"):
            return False
        reported = source.reported
        if reported is not None and who.pid and (reported.node, reported.pid) == (who.node, who.pid):
            return True
        is_local = who.pid is not None or who.pod is not None
        return (is_local and row["reason"] in _ON_THE_WAY_OUT) or self._is_own(source.ip, row)

    def _is_own(self, ip: str, row: Row) -> bool:
        pod = self._book.find(ip, "", at_ns=nanoseconds(row["timestamp"])).pod
        return pod is not None and (pod.namespace, pod.name) == (row["namespace"], row["pod"])

    def _dns(self, row: Row) -> FlowEvent | None:
        side = row["role"]
        flow = self._exchanged(row, row["protocol"], _end(row, "client"), _end(row, "server"))
        own = f"{row['namespace']}/{row['pod']}" if row.get("pod") else row["node"]
        asker = own if side == "client" else flow.client.name
        for address in row.get("addresses") or ():
            self._book.resolved(asker, address, row["name"])
        if flow.by_client and side == "server":
            return None  # the client's row contains the same
        flow.see(side)
        answered = row["rcode"] not in ("NOANSWER", "MALFORMED")
        said = f"{row['rcode']} {', '.join(row.get('addresses') or ())}".strip()
        latency = row.get("latency")
        words = f"DNS {row['type']} {row['name']} {said}" + (
            f" {duration_text(latency)}" if answered and latency else ""
        )
        l7 = {"type": "dns", "type_name": row["type"]}
        l7 |= {key: row.get(key) for key in ("name", "rcode", "addresses", "latency")}
        return self._row_event(
            row, flow, "dns", FORWARDED if answered else ERROR, words, side, is_reply=answered, l7=l7
        )

    def _http(self, row: Row) -> FlowEvent | None:
        side = row["role"]
        ends = [_end(row, name) for name in (("local", "remote") if side == "client" else ("remote", "local"))]
        flow = self._exchanged(row, "TCP", *ends)
        if flow.by_client and side == "server":
            return None
        status, latency = row.get("status"), row.get("latency")
        is_answered = status != 0
        where = f"{row.get('host') or ''}{row.get('target') or ''}"
        call = row["protocol"] == "gRPC"
        words = ["gRPC", row.get("target")] if call else ["HTTP", row.get("method"), where or None]
        words += [row.get("grpc_status") if call and is_answered else status] if is_answered else ["no answer"]
        said = " ".join("?" if word is None else str(word) for word in words)
        if row.get("error"):
            said += f", {row['error']}"
        elif row.get("reset"):
            said += f", reset {row['reset']}"
        elif is_answered and latency is not None:
            said += f" {duration_text(latency)}"
        l7 = {"type": "http"} | {key: row.get(key) for key in _HTTP}
        verdict = FORWARDED if is_answered else ERROR
        return self._row_event(row, flow, "http", verdict, said, side, is_reply=is_answered, l7=l7)

    def _packet(self, row: Row) -> FlowEvent | None:
        """One packet, reported by its sender, unless only the other end is traced."""
        protocol = row["protocol"]
        if protocol not in ("TCP", "UDP"):
            return None
        source, target = _end(row, "source"), _end(row, "destination")
        sends = row["direction"] == "out"
        who = self.ends.who(row)
        scope = _scope(who, source[0])
        key = (scope, protocol, *source, *target)
        if sends:
            self._senders[key] = None
            if len(self._senders) > self._most:
                self._senders.popitem(last=False)
        elif key in self._senders:
            return None
        flow, side = self._flows.get(key), "client" if sends else "server"
        is_reply = flow is None and (scope, protocol, *target, *source) in self._flows
        if is_reply:
            flow, side = self._flows.get((scope, protocol, *target, *source)), "server" if sends else "client"
        if flow is None:
            flow = Flow(protocol, Party(*source), Party(*target), False, nanoseconds(row["timestamp"]))
            self._own(flow.client if sends else flow.server, who)
            self._name_others(flow)
        flags = tuple(row["flags"].split("|")) if row.get("flags") else ()
        words = ", ".join([*filter(None, flags), f"{row['length']}B"])
        return self._row_event(row, flow, "packet", FORWARDED, words, side, is_reply=is_reply, tcp_flags=flags)

    # --- finding the flow

    def _exchanged(self, row: Row, protocol: str, client: AddressPort, server: AddressPort) -> Flow:
        """The flow in which a request or its response was seen."""
        who, time_ns = self.ends.who(row), nanoseconds(row["timestamp"])
        key = _key(who, protocol, client, server)
        return self._meet(FlowEnd(row["event"], time_ns, who, "", "", "", key), key, row["role"], fresh=False)[0]

    def _oriented(self, row: FlowEnd, otherwise: str, likely: str = "") -> tuple[str, Key]:
        """Side and flow of a row that does not say which end began: the known flow, else `likely`, else by the ports,
        else `otherwise`."""
        forth = row.key
        local, remote = row.local, row.remote
        back = _key(row.who, row.protocol, remote, local)
        if forth in self._flows:
            return "client", forth
        if back in self._flows:
            return "server", back
        low, other_low = local[1] < _EPHEMERAL, remote[1] < _EPHEMERAL
        side = likely or (otherwise if low == other_low else "server" if low else "client")
        return side, forth if side == "client" else back

    def _meet(self, row: FlowEnd, key: Key, side: str, fresh: bool) -> tuple[Flow, bool]:
        """The flow with this key, to which a row belongs, and whether it is new. `fresh`: the row begins a flow."""
        flow = self._flows.get(key)
        is_known = flow is not None
        if flow is None and not key[0]:
            flow = self._clients.find(key, side, row.time_ns) or self._translated.find(row, key)
            if flow is not None:
                self._flows[key] = flow
                server = Party(key[4], key[5])
                if key[4:] == (flow.server.ip, flow.server.port):
                    pass  # only the client's address was translated
                elif side == "client":
                    # The server's row came first; only now is the address known that the client used.
                    server.who = self._peer(server, flow.client, row.time_ns)
                    flow.backend, flow.server = flow.server, server
                else:
                    flow.backend = server
        if flow is not None and not (fresh and flow.ended_ns and _is_over(flow, side, row)):
            party = flow.client if side == "client" else flow.backend or flow.server
            if party.reported is not row.who:
                self._own(party, row.who)
            return flow, False
        flow = self._begin(row, key, side)
        if is_known:
            self._flows.move_to_end(key)
        self._flows[key] = flow
        if len(self._flows) > self._most:
            _, oldest = self._flows.popitem(last=False)
            self.forgotten += not oldest.closed
            self._forget(oldest)
        return flow, True

    def _begin(self, row: FlowEnd, key: Key, side: str) -> Flow:
        scope, protocol, client_ip, client_port, server_ip, server_port = key
        client, server = Party(client_ip, client_port), Party(server_ip, server_port)
        oriented = row.side != "" or (client_port < _EPHEMERAL) != (server_port < _EPHEMERAL)
        flow = Flow(protocol, client, server, oriented, row.time_ns, scope)
        if side == "client":
            self._own(client, row.who)
            server.who = self._peer(server, client, row.time_ns)
        else:
            self._own(server, row.who)
            client.who = self._peer(client, server, row.time_ns)
        if not scope:
            self._clients.add(flow)
        return flow

    def _end(self, flow: Flow, time_ns: int) -> None:
        """Records that a flow has ended; with too many ended flows, the one that ended first is forgotten."""
        if not flow.ended_ns:
            self._ended.append(flow)
        flow.ended_ns = time_ns
        if len(self._ended) > self._most_ended:
            self._forget(self._ended.popleft())

    def _forget(self, flow: Flow) -> None:
        client, server = flow.client, flow.server
        key = (flow.scope, flow.protocol, client.ip, client.port, server.ip, server.port)
        if self._flows.get(key) is flow:
            del self._flows[key]
        if (backend := flow.backend) is not None:
            key = (*key[:4], backend.ip, backend.port)
            if self._flows.get(key) is flow:
                del self._flows[key]
        if flow.translated is not None and self._flows.get(flow.translated) is flow:
            del self._flows[flow.translated]
        if not flow.scope:
            self._clients.forget(flow)

    def _own(self, party: Party, who: Who) -> None:
        """Records the owner of the end that made a row."""
        party.reported = who
        party.who = party.who.and_then(who)
        if who.pod is not None:
            self._book.saw(party.ip, who.pod)

    def _name_others(self, flow: Flow) -> None:
        for party, other in ((flow.client, flow.server), (flow.server, flow.client)):
            if party.reported is None:
                party.who = self._peer(party, other, flow.first_ns)

    def _peer(self, party: Party, other: Party, at_ns: int) -> Who:
        """The owner of an end that was not traced."""
        if (known := self._book.known(party.ip, other.name)) is not None:
            return known
        pod = other.who.pod
        own = OwnEnd(other.who.node, pod.namespace, pod.name, other.port) if pod else None
        return self._book.find(party.ip, other.name, party.port, at_ns, own)

    @staticmethod
    def _speaks(flow: Flow, side: str) -> bool:
        """True if this side's reports become events: the client's when both sides are seen."""
        return side == "client" or not flow.by_client

    @staticmethod
    def _event(
        row: FlowEnd, flow: Flow, kind: Any, verdict: Any, said: str | Traffic, side: str, **more: Any
    ) -> FlowEvent:
        return FlowEvent(row.time_ns, row.who.node, kind, flow, verdict, said, observer=side, **more)

    @staticmethod
    def _row_event(
        row: Row, flow: Flow, kind: Any, verdict: Any, said: str | Traffic, side: str, **more: Any
    ) -> FlowEvent:
        time_ns = nanoseconds(row["timestamp"])
        return FlowEvent(time_ns, row["node"], kind, flow, verdict, said, observer=side, **more)


def _is_over(flow: Flow, side: str, row: FlowEnd) -> bool:
    """True if a row that begins a flow belongs to a new flow, since this one has ended. Rows of the other end may
    arrive late, but with correct times; and a connection may wait before it is accepted."""
    if row.operation == "accept":
        # When it ended in the meantime, its waiting time is unknown.
        return row.duration >= 0 and row.time_ns - row.duration > flow.ended_ns
    return (flow.by_client if side == "client" else flow.by_server) or row.time_ns > flow.ended_ns


def _syns(count: int) -> str:
    return f"SYN sent {'once' if count == 1 else f'{count} times'}"


def _end(row: Row, name: str) -> AddressPort:
    return row[name], row[f"{name}_port"]


def _key(who: Who, protocol: str, client: AddressPort, server: AddressPort) -> Key:
    return (_scope(who, client[0]), protocol, *client, *server)


def _scope(who: Who, ip: str) -> str:
    return who.scope if is_shared(ip) else ""


def _denial(row: Row) -> Denial | None:
    if not row.get("policy"):
        return None
    return Denial(_names(row["policy"]), row.get("namespace") or "", row["policy_direction"], row.get("rule") or "")


def _names(policies: str) -> tuple[str, ...]:
    return tuple(policies.split(", "))


def _netfilter_hook(row: Row) -> list[str]:
    """The hook at which a rule dropped the packet, when a rule did and the kernel's stack shows it; else empty."""
    if row["reason"] != "NETFILTER_DROP":
        return []
    calls = [str(call).partition("+")[0] for call in row.get("stack") or ()]
    return [_HOOKS[call] for call in calls if call in _HOOKS][:1]


# Behind a service's address, the client's node knows the service's address and the server's node the server's own; both
# know the client's address and port. A client may use one port for several servers at the same time. So if more than
# one flow is possible, the cluster has to say which service leads to the server; otherwise no flows are joined.


_APART_NS = 30_000_000_000
"""The longest time between the first rows of the two ends."""
_SOONER = 30


class ServiceClients:
    """Flows by their client's end, with addresses that are unique in the network."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        self._flows: dict[tuple[str, str, int], Flow | list[Flow]] = {}

    def add(self, flow: Flow) -> None:
        """Adds a flow that has begun."""
        key = (flow.protocol, flow.client.ip, flow.client.port)
        before = self._flows.setdefault(key, flow)
        if before is not flow:
            self._flows[key] = [*(known for known in _all(before) if not known.closed), flow]

    def forget(self, flow: Flow) -> None:
        """Removes a flow."""
        key = (flow.protocol, flow.client.ip, flow.client.port)
        if self._flows.get(key) is flow:
            del self._flows[key]
            return
        left = [known for known in _all(self._flows.get(key, [])) if known is not flow]
        if left:
            self._flows[key] = left
        else:
            self._flows.pop(key, None)

    def find(self, key: tuple[str, str, str, int, str, int], side: str, time_ns: int) -> Flow | None:
        """The flow that is the same as the one with this key, as seen by `side`; None: there is none,
        or it is ambiguous."""
        known_ones = self._flows.get(key[1:4])
        if known_ones is None:
            return None
        server = key[4:]
        mine, others = ("by_client", "by_server") if side == "client" else ("by_server", "by_client")
        found = [
            flow
            for flow in _all(known_ones)
            if getattr(flow, others)
            and not getattr(flow, mine)
            and flow.backend is None
            and _apart_ns(flow, time_ns) < _APART_NS
        ]
        if not found:
            return None
        known = [flow for flow in found if self._leads(flow, server, side)]
        if known:
            return known[0]
        asked = [server[0]] if side == "client" else [flow.server.ip for flow in found]
        if len(found) > 1 or any(map(self._book.is_own, asked)):
            return None
        return found[0]

    def _leads(self, flow: Flow, server: tuple[str, int], side: str) -> bool:
        """True if the cluster says that the address the client called leads to the server."""
        seen = (flow.server.ip, flow.server.port)
        service, backend = (seen, server) if side == "server" else (server, seen)
        return service in self._book.cluster.services_of_backend.get(backend[0], ())


def _all(known: Flow | list[Flow]) -> Sequence[Flow]:
    """Return the flows as a sequence. Most clients have a single one, which is stored without a list."""
    return (known,) if isinstance(known, Flow) else known


def _apart_ns(flow: Flow, time_ns: int) -> int:
    if flow.closed and time_ns > flow.ended_ns:
        # Late rows of a flow that has ended arrive soon after its end.
        return (time_ns - flow.ended_ns) * _SOONER
    return abs(time_ns - flow.first_ns)


# If the client's address was translated on the way (masquerading), both ends see different addresses, but the same
# sequence number of the SYN, which the client chooses at random from 32 bits. Something on the way may make connections
# of its own (a proxy, synproxy); such a flow is two flows, and stays two.


_MOST_SYNS = 65536


class TranslatedClients:
    """Flows with only the client's end seen so far, by the sequence number of their SYN."""

    def __init__(self) -> None:
        self._flows: OrderedDict[int, Flow] = OrderedDict()

    def note(self, sequence: int, flow: Flow) -> None:
        """Record that a client has connected."""
        self._flows[sequence] = flow
        if len(self._flows) > _MOST_SYNS:
            self._flows.popitem(last=False)

    def find(self, row: FlowEnd, key: tuple[str, str, str, int, str, int]) -> Flow | None:
        """The flow that a server accepts, with this key at its end; None: it is none of the known
        flows."""
        if not row.sequence or row.operation != "accept":
            return None
        flow = self._flows.pop(row.sequence, None)
        if flow is None or flow.by_server or flow.backend is not None:
            return None
        if abs(row.time_ns - max(row.duration, 0) - flow.first_ns) > _APART_NS:
            return None
        flow.translated = key
        return flow
