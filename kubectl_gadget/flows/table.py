"""From the network gadgets' rows, in the order of time and of all nodes, to flows and what is told of them.

A row is what one end saw. Both ends' rows meet in one flow by its addresses and ports; where a service's address
stands between them, by the client's address and port alone (behind.py). The trap: rows of the two ends come in any
order, so whichever is first tells, and the other one only adds what it knows.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from kubectl_gadget.events.kinds import bytes_text, duration_text
from kubectl_gadget.events.wall_time import nanoseconds
from kubectl_gadget.flows.behind import Clients
from kubectl_gadget.flows.book import AddressBook, is_shared
from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, Flow, FlowEvent, Party

Row = Mapping[str, Any]
_Key = tuple[str, str, str, int, str, int]
"""scope, protocol, client and server; the scope tells loopback addresses of different network namespaces apart"""

COLUMNS = (
    *(
        "timestamp",
        "node",
        "namespace",
        "pod",
        "container",
        "pod_uid",
        "pid",
        "comm",
        "exec_id",
        "user_pid",
        "user_comm",
    ),
    *("operation", "errno", "local", "local_port", "remote", "remote_port", "initiator", "end", "duration", "rtt"),
    *("sent", "received", "sent_segments", "received_segments", "retransmits", "sent_packets", "received_packets"),
    *("id", "reason", "flags", "source", "source_port", "destination", "destination_port", "direction", "length"),
    *("role", "protocol", "client", "client_port", "server", "server_port", "name", "type", "rcode", "addresses"),
    *("latency", "method", "host", "target", "status", "grpc_status", "grpc_status_raw", "reset"),
)
"""Of all gadgets, those that are looked at: to read a column costs time for each row."""

MOST_FLOWS = 200_000
"""of which the oldest are forgotten when there are more"""
_TIDYING = frozenset({"QUEUE_PURGE", "SKB_CONSUMED"})
"""Reasons that say that a socket is closed, and not that something went wrong."""
_NO_REASON = "NOT_SPECIFIED"
_DNS_PORT = 53
_HTTP = ("method", "host", "target", "status", "latency", "protocol", "grpc_status", "grpc_status_raw", "reset")
_EPHEMERAL = 32768
"""Linux' own range of ports for clients begins here (ip_local_port_range)."""


class FlowTable:
    """Takes rows, as -o json has them with `event`, and gives events. It looks addresses up in `book`."""

    def __init__(self, book: AddressBook, tells_dns: bool = True, most: int = MOST_FLOWS) -> None:
        self.tells_dns = tells_dns
        """whether there are rows of trace dns"""
        self._book = book
        self._most = most
        self._flows: OrderedDict[_Key, Flow] = OrderedDict()
        self._clients = Clients(book)
        self._senders: OrderedDict[_Key, None] = OrderedDict()
        """directions whose packets the sender tells"""
        self.forgotten = 0
        """flows that were dropped from memory before they ended"""

    def add(self, row: Row) -> Iterator[FlowEvent]:
        """What this row tells."""
        match row["event"]:
            case "trace_tcp":
                yield from self._tcp(row)
            case "trace_udp":
                yield from self._packets(row, "UDP")
            case "trace_icmp":
                protocol = "ICMPv6" if ":" in row["remote"] else "ICMP"
                yield from self._packets({**row, "local_port": row["id"], "remote_port": 0}, protocol)
            case "trace_tcpdrop":
                yield from self._drop(row)
            case "trace_dns":
                yield from self._dns(row)
            case "trace_http":
                yield from self._http(row)
            case "tcpdump":
                yield from self._packet(row)

    # --- TCP

    def _tcp(self, row: Row) -> Iterator[FlowEvent]:
        operation, failed = row["operation"], row.get("error") or ""
        if not row["remote"] or not row["remote_port"]:
            return  # a call that failed before it had an address
        side = self._side(row)
        flow, is_new = self._meet(
            row, "TCP", side, fresh=operation in ("syn", "accept") or (operation == "connect" and bool(failed))
        )
        flow.seen_by.add(side)
        if row.get("rtt") is not None and side == "client":
            flow.rtt_ns = row["rtt"]
        if operation == "close":
            yield from self._closed(row, flow, side)
        elif failed:
            flow.ended = row["timestamp"]
            yield self._event(row, flow, "error", ERROR, failed, side, errno=failed, duration_ns=row.get("duration"))
        elif operation == "report":
            self._count(row, flow, side)
            if self._speaks(flow, side):
                yield self._event(row, flow, "report", FORWARDED, _traffic(flow), side)
        elif is_new:
            words = {"syn": "SYN", "connect": "established", "accept": "accepted", "open": "open"}
            flags = ("SYN",) if operation in ("syn", "accept") else ()
            yield self._event(row, flow, "new", FORWARDED, words[operation], side, tcp_flags=flags)

    def _closed(self, row: Row, flow: Flow, side: str) -> Iterator[FlowEvent]:
        self._count(row, flow, side)
        if flow.closed:
            return
        flow.ended = row["timestamp"]
        error = row.get("error") or ""
        how = {"fin": "FIN", "timeout": "timeout"}.get(row.get("end") or "", "RST")
        duration = row.get("duration")
        words = [how, _traffic(flow)] + ([duration_text(duration)] if duration is not None else [])
        yield self._event(
            row,
            flow,
            "close",
            FORWARDED,
            ", ".join(words),
            side,
            errno=error,
            duration_ns=duration,
            tcp_flags=() if how == "timeout" else (how,),
        )

    def _count(self, row: Row, flow: Flow, side: str) -> None:
        """The larger number of both ends is the later one."""
        out, back = ("sent", "received") if side == "client" else ("received", "sent")
        flow.sent = max(flow.sent, row.get(out) or 0)
        flow.received = max(flow.received, row.get(back) or 0)
        segments = (
            ("sent_segments", "received_segments") if side == "client" else ("received_segments", "sent_segments")
        )
        flow.sent_packets = max(flow.sent_packets, row.get(segments[0]) or 0)
        flow.received_packets = max(flow.received_packets, row.get(segments[1]) or 0)
        if side == "client" or "client" not in flow.seen_by:
            flow.retransmits = row.get("retransmits") or 0

    # --- UDP and pings

    def _packets(self, row: Row, protocol: str) -> Iterator[FlowEvent]:
        known = self._find(row, protocol)
        began = row["operation"] == "first"
        side = known or ("client" if row["sent_packets"] and began else self._guess(row) or "server")
        flow, is_new = self._meet(row, protocol, side, fresh=began)
        flow.seen_by.add(side)
        flow.oriented = flow.oriented or began
        self._count_packets(row, flow, side)
        if self.tells_dns and protocol == "UDP" and flow.server.port == _DNS_PORT:
            if row["operation"] == "end":
                flow.ended = flow.ended or row["timestamp"]
            return  # each question is told by itself
        match row["operation"]:
            case "first" if is_new:
                words = "UDP" if protocol == "UDP" else "echo request"
                yield self._event(row, flow, "new", FORWARDED, words, side)
            case "flow" if self._speaks(flow, side):
                yield self._event(row, flow, "report", FORWARDED, _traffic(flow), side)
            case "end" if not flow.closed:
                flow.ended = row["timestamp"]
                words = _traffic(flow) if protocol == "UDP" else f"{flow.sent_packets} out, {flow.received_packets} in"
                words = f"end, {words}, {duration_text(row['duration'])}"
                # Nobody answered, of all that was asked.
                silent = protocol != "UDP" and not flow.received_packets
                verdict = ERROR if silent else FORWARDED
                yield self._event(row, flow, "close", verdict, words, side, duration_ns=row["duration"])

    def _count_packets(self, row: Row, flow: Flow, side: str) -> None:
        out, back = ("sent", "received") if side == "client" else ("received", "sent")
        flow.sent, flow.received = max(flow.sent, row[out]), max(flow.received, row[back])
        flow.sent_packets = max(flow.sent_packets, row[f"{out}_packets"])
        flow.received_packets = max(flow.received_packets, row[f"{back}_packets"])

    # --- what else is told

    def _drop(self, row: Row) -> Iterator[FlowEvent]:
        """A packet that the kernel dropped; it may belong to a flow or to none."""
        source, target = _end(row, "source"), _end(row, "destination")
        scope = _scope(row, source[0])
        outgoing = self._flows.get((scope, "TCP", *source, *target))
        flow = outgoing or self._flows.get((scope, "TCP", *target, *source))
        if row["reason"] in _TIDYING or (row["reason"] == _NO_REASON and row.get("flags") == "ACK" and flow):
            return  # how the kernel frees the last packet of a handshake or of an end
        if flow is not None and flow.closed:
            return  # what is left of a connection that has ended
        if flow is None:
            flow = Flow("TCP", Party(*source), Party(*target), True, row["timestamp"])
            # Whose the row is, is whose the packet's socket is: the destination's as a rule.
            owner = flow.client if self._is_own(source[0], row) else flow.server
            self._own(owner, row)
            self._name_others(flow)
        flags = tuple(str(row.get("flags") or "").split("|"))
        words = f"{row['reason']} ({', '.join(flags)})" if flags[0] else row["reason"]
        yield self._event(
            row,
            flow,
            "drop",
            DROPPED,
            words,
            "server",
            is_reply=outgoing is None,
            drop_reason=row["reason"],
            tcp_flags=flags,
        )

    def _is_own(self, ip: str, row: Row) -> bool:
        found = Party(ip, 0)
        self._book.name(found, "")
        return found.pod is not None and (found.pod.namespace, found.pod.name) == (row["namespace"], row["pod"])

    def _dns(self, row: Row) -> Iterator[FlowEvent]:
        client, server = (row["client"], row["client_port"]), (row["server"], row["server_port"])
        side = row["role"]
        flow, _ = self._meet(row, row["protocol"], side, fresh=False, ends=(client, server))
        asker = _asker(row) if side == "client" else flow.client.name
        for address in row.get("addresses") or ():
            self._book.resolved(asker, address, row["name"])
        if "client" in flow.seen_by and side == "server":
            return  # the client's row tells the same
        flow.seen_by.add(side)
        answered = row["rcode"] not in ("NOANSWER", "MALFORMED")
        said = f"{row['rcode']} {', '.join(row.get('addresses') or ())}".strip()
        latency = row.get("latency")
        words = f"DNS {row['type']} {row['name']} {said}" + (
            f" {duration_text(latency)}" if answered and latency else ""
        )
        l7 = {"type": "dns", "type_name": row["type"]}
        l7 |= {key: row.get(key) for key in ("name", "rcode", "addresses", "latency")}
        yield self._event(row, flow, "dns", FORWARDED if answered else ERROR, words, side, is_reply=answered, l7=l7)

    def _http(self, row: Row) -> Iterator[FlowEvent]:
        side = row["role"]
        ends = _ends(row)
        flow, _ = self._meet(row, "TCP", side, fresh=False, ends=ends if side == "client" else (ends[1], ends[0]))
        if "client" in flow.seen_by and side == "server":
            return
        status, latency = row.get("status"), row.get("latency")
        is_answered = status != 0
        where = f"{row.get('host') or ''}{row.get('target') or ''}"
        call = row["protocol"] == "gRPC"
        words = ["gRPC", row.get("target")] if call else ["HTTP", row.get("method"), where or None]
        words += [row.get("grpc_status") if call and is_answered else status] if is_answered else ["no answer"]
        said = " ".join("?" if word is None else str(word) for word in words)
        if row.get("reset"):
            said += f", reset {row['reset']}"
        elif is_answered and latency is not None:
            said += f" {duration_text(latency)}"
        l7 = {"type": "http"} | {key: row.get(key) for key in _HTTP}
        verdict = FORWARDED if is_answered else ERROR
        yield self._event(row, flow, "http", verdict, said, side, is_reply=is_answered, l7=l7)

    def _packet(self, row: Row) -> Iterator[FlowEvent]:
        """One packet, told by who sent it, unless only the other end is traced."""
        protocol = row["protocol"]
        if protocol not in ("TCP", "UDP"):
            return
        source, target = _end(row, "source"), _end(row, "destination")
        sends = row["direction"] == "out"
        scope = _scope(row, source[0])
        key = (scope, protocol, *source, *target)
        if sends:
            self._senders[key] = None
            if len(self._senders) > self._most:
                self._senders.popitem(last=False)
        elif key in self._senders:
            return
        flow, side = self._flows.get(key), "client" if sends else "server"
        is_reply = flow is None and (scope, protocol, *target, *source) in self._flows
        if is_reply:
            flow, side = self._flows[scope, protocol, *target, *source], "server" if sends else "client"
        if flow is None:
            flow = Flow(protocol, Party(*source), Party(*target), False, row["timestamp"])
            self._own(flow.client if sends else flow.server, row)
            self._name_others(flow)
        flags = tuple(row["flags"].split("|")) if row.get("flags") else ()
        words = ", ".join([*filter(None, flags), f"{row['length']}B"])
        yield self._event(row, flow, "packet", FORWARDED, words, side, is_reply=is_reply, tcp_flags=flags)

    # --- which flow

    def _side(self, row: Row) -> str:
        """Whose side saw it."""
        match row.get("initiator"):
            case "this end":
                return "client"
            case "other end":
                return "server"
        return self._find(row, "TCP") or self._guess(row) or "client"

    def _find(self, row: Row, protocol: str) -> str | None:
        """The side, when the flow is known already."""
        local, remote = _ends(row)
        scope = _scope(row, local[0])
        if (scope, protocol, *local, *remote) in self._flows:
            return "client"
        return "server" if (scope, protocol, *remote, *local) in self._flows else None

    @staticmethod
    def _guess(row: Row) -> str | None:
        """By the ports, for flows whose beginning nobody saw."""
        local, remote = row["local_port"] < _EPHEMERAL, row["remote_port"] < _EPHEMERAL
        return None if local == remote else "server" if local else "client"

    def _meet(
        self,
        row: Row,
        protocol: str,
        side: str,
        fresh: bool,
        ends: tuple[tuple[str, int], tuple[str, int]] | None = None,
    ) -> tuple[Flow, bool]:
        """The flow that a row is about, and whether it is a new one. `fresh`: the row begins one."""
        local, remote = _ends(row) if ends is None else ends
        client, server = (local, remote) if side == "client" or ends is not None else (remote, local)
        scope = _scope(row, client[0])
        key: _Key = (scope, protocol, *client, *server)
        flow = self._flows.get(key)
        if flow is None and not scope:
            flow = self._clients.find(protocol, client, server, side, row["timestamp"])
            if flow is not None:
                self._flows[key] = flow
                if side == "client":
                    # The server's row came first; now it is known under which address it was asked.
                    flow.backend, flow.server = flow.server, Party(*server)
                    self._book.name(flow.server, flow.client.name)
                else:
                    flow.backend = Party(*server)
        if flow is not None and not (fresh and _is_over(flow, side, row)):
            self._own(flow.client if side == "client" else flow.backend or flow.server, row)
            return flow, False
        flow = Flow(protocol, Party(*client), Party(*server), True, row["timestamp"])
        flow.oriented = (protocol == "TCP" and bool(row.get("initiator"))) or self._guess_is_sure(client, server)
        self._own(flow.client if side == "client" else flow.server, row)
        self._name_others(flow)
        self._flows[key] = flow
        self._flows.move_to_end(key)
        if not scope:
            self._clients.add(flow)
        if len(self._flows) > self._most:
            _, oldest = self._flows.popitem(last=False)
            self._clients.forget(oldest)
            self.forgotten += not oldest.closed
        return flow, True

    @staticmethod
    def _guess_is_sure(client: tuple[str, int], server: tuple[str, int]) -> bool:
        return (client[1] < _EPHEMERAL) != (server[1] < _EPHEMERAL)

    def _own(self, party: Party, row: Row) -> None:
        """What the row knows of the end that it is of."""
        if row.get("pod"):
            party.entity, party.pod = "pod", self._book.facts(row["namespace"], row["pod"])
            self._book.saw(party.ip, party.pod)
        elif not row.get("container"):
            party.entity = "node"
        party.node, party.container = row["node"], row.get("container") or ""
        if row.get("pid"):
            party.pid, party.comm = row["pid"], row.get("comm") or ""
            party.exec_id = row.get("exec_id") or party.exec_id
        if row.get("user_pid"):
            party.user_pid, party.user_comm = row["user_pid"], row["user_comm"]

    def _name_others(self, flow: Flow) -> None:
        for party, other in ((flow.client, flow.server), (flow.server, flow.client)):
            if not party.node:
                self._book.name(party, other.name)

    @staticmethod
    def _speaks(flow: Flow, side: str) -> bool:
        """Whether this side's reports are told: the client's, if both are seen."""
        return side == "client" or "client" not in flow.seen_by

    @staticmethod
    def _event(row: Row, flow: Flow, kind: Any, verdict: Any, summary: str, side: str, **more: Any) -> FlowEvent:
        return FlowEvent(row["timestamp"], row["node"], kind, flow, verdict, summary, observer=side, **more)


def _is_over(flow: Flow, side: str, row: Row) -> bool:
    """Whether a row that begins a flow begins another one. The other end's rows may come late, but not its times; and a
    connection may have been waiting for a while when it is accepted."""
    if not flow.closed:
        return False
    if row["operation"] == "accept":
        # How long it waited is not known any more when it ended meanwhile.
        waited = row.get("duration")
        return waited is not None and nanoseconds(row["timestamp"]) - waited > nanoseconds(flow.ended)
    return side in flow.seen_by or row["timestamp"] > flow.ended


def _ends(row: Row) -> tuple[tuple[str, int], tuple[str, int]]:
    return (row["local"], row["local_port"]), (row["remote"], row["remote_port"])


def _end(row: Row, name: str) -> tuple[str, int]:
    return row[name], row[f"{name}_port"]


def _asker(row: Row) -> str:
    return f"{row['namespace']}/{row['pod']}" if row.get("pod") else row["node"]


def _scope(row: Row, ip: str) -> str:
    return f"{row['node']}/{row.get('pod_uid') or row.get('pod') or ''}" if is_shared(ip) else ""


def _traffic(flow: Flow) -> str:
    return f"{bytes_text(flow.sent)} out, {bytes_text(flow.received)} in"
