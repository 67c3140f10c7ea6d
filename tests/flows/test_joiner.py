"""Rows of two ends and of several gadgets become flows: each once, with both processes."""

import random
from typing import Any

import pytest

from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, FlowEvent
from kubectl_gadget.flows.hubble import hubble
from kubectl_gadget.flows.records import record
from kubectl_gadget.kube.addresses import Addresses
from tests.flows.rows import (
    CLIENT,
    DEATHSTAR,
    HOST,
    SERVER,
    SERVICE,
    XWING,
    RowTable,
    accepted,
    dns,
    drop,
    http,
    icmp,
    stamp,
    tcp,
    udp,
)

BYTES = {"sent": 70, "received": 900, "sent_segments": 5, "received_segments": 4, "retransmits": 1}
BYTES_OF_SERVER = {"sent": 900, "received": 70, "sent_segments": 4, "received_segments": 5, "retransmits": 0}


def tell(*rows: dict[str, Any], table: RowTable | None = None) -> list[FlowEvent]:
    table = table or RowTable(AddressBook())
    return [event for row in rows for event in table.add(row)]


def both_ends() -> list[dict[str, Any]]:
    return [
        tcp("syn", 1.0),
        tcp("connect", 1.1, rtt=2_000_000),
        accepted("accept", 1.2),
        tcp("close", 1.5, initiator="this end", end="fin", duration=400_000_000, **BYTES),
        accepted("close", 1.6, initiator="other end", end="fin", duration=400_000_000, **BYTES_OF_SERVER),
    ]


def test_a_connection_seen_from_both_ends_is_one_flow_with_both_processes() -> None:
    began, ended = tell(*both_ends())
    assert (began.kind, began.summary, ended.kind) == ("new", "SYN", "close")
    assert began.flow is ended.flow
    assert (ended.flow.client.name, ended.flow.client.who.process) == ("default/xwing", "curl 11")
    assert (ended.flow.server.name, ended.flow.server.who.process) == ("empire/deathstar", "httpd 22")
    assert ended.flow.seen_by == {"client", "server"}
    assert (ended.flow.sent, ended.flow.received, ended.flow.retransmits) == (70, 900, 1)
    assert ended.flow.rtt_ns == 2_000_000
    assert ended.summary == "FIN, 70B out, 900B in, 400ms"


def test_the_ends_may_come_in_any_order() -> None:
    generator = random.Random(7)
    for _ in range(50):
        client = [row for row in both_ends() if row["pod"] == "xwing"]
        server = [row for row in both_ends() if row["pod"] != "xwing"]
        rows = []
        while client or server:
            rows.append((client if not server or (client and generator.random() < 0.5) else server).pop(0))
        events = tell(*rows)
        assert [event.kind for event in events] == ["new", "close"]
        assert events[-1].flow.seen_by == {"client", "server"}


def test_a_connection_that_only_the_server_saw_is_reported_by_it() -> None:
    began, ended = tell(
        accepted("accept", 1), accepted("close", 2, initiator="other end", end="fin", **BYTES_OF_SERVER)
    )
    assert (began.summary, began.observer) == ("accepted", "server")
    assert (began.flow.client.name, began.flow.client.who.entity) == ("10.1.0.2", "world")
    assert (ended.flow.sent, ended.flow.received) == (70, 900)


def test_ports_that_are_used_again_make_other_flows() -> None:
    events = tell(*both_ends(), tcp("syn", 2.0), tcp("close", 2.5, initiator="this end", end="fin", **BYTES))
    assert [event.kind for event in events] == ["new", "close"] * 2
    assert events[0].flow is not events[2].flow


def test_an_accept_after_the_client_has_closed_is_the_same_connection() -> None:
    closed = tcp("close", 1.5, initiator="this end", end="fin", **BYTES)
    late = accepted("accept", 1.9, duration=800_000_000)
    end = accepted("close", 2, initiator="other end", end="fin", **BYTES_OF_SERVER)
    events = tell(tcp("syn", 1), closed, late, end)
    assert [event.kind for event in events] == ["new", "close"]
    assert events[-1].flow.seen_by == {"client", "server"}
    fresh = accepted("accept", 1.9, duration=300_000_000)
    assert [event.kind for event in tell(tcp("syn", 1), closed, fresh)] == ["new", "close", "new"]


def test_a_reset_that_the_server_sees_before_it_accepts_ends_the_same_connection() -> None:
    sent = tcp("close", 1.5, initiator="this end", end="reset sent", **BYTES)
    seen = accepted("close", 1.6, errno=104, error="ECONNRESET", end="reset received", **BYTES_OF_SERVER)
    events = tell(tcp("syn", 1), sent, seen, accepted("accept", 1.7))
    assert [event.kind for event in events] == ["new", "close"]


def test_refused_and_silent_connections_are_errors_with_their_reason() -> None:
    events = tell(tcp("syn", 1), tcp("connect", 1.1, errno=111, error="ECONNREFUSED", duration=5))
    assert [(event.verdict, event.summary) for event in events] == [("FORWARDED", "SYN"), (ERROR, "ECONNREFUSED")]


def test_a_call_without_an_address_makes_no_flow() -> None:
    assert tell(tcp("accept", 1, remote=("", 0), errno=24, error="EMFILE")) == []


def test_reports_come_from_the_client_when_both_ends_are_seen() -> None:
    rows = both_ends()[:3]
    report = tcp("report", 2, initiator="this end", **BYTES)
    of_server = accepted("report", 2, initiator="other end", **BYTES_OF_SERVER)
    events = tell(*rows, report, of_server)
    assert [event.kind for event in events] == ["new", "report"]
    assert events[-1].summary == "70B out, 900B in"


def test_a_report_says_that_the_syn_has_no_answer() -> None:
    silent = {"initiator": "this end", "sent": 0, "received": 0, "sent_segments": 4, "received_segments": 0}
    _, event = tell(tcp("syn", 1), tcp("report", 2, **silent))
    assert (event.kind, event.summary, event.tcp_flags) == ("report", "SYN sent 4 times, no answer", ("SYN",))
    _, event = tell(tcp("syn", 1), tcp("report", 2, **silent | {"sent_segments": 1}))
    assert event.summary == "SYN sent once, no answer"
    _, event = tell(tcp("syn", 1), tcp("report", 2, **silent | {"received_segments": 1}))
    assert event.summary == "0B out, 0B in"


def test_the_server_of_an_older_connection_is_guessed_by_its_ports() -> None:
    (event,) = tell(accepted("open", 1))
    assert (event.flow.server.name, event.flow.server.port) == ("empire/deathstar", SERVER[1])
    high = (CLIENT[0], 50000)
    (event,) = tell(tcp("open", 1, remote=(SERVER[0], 51000), local=high))
    assert not event.flow.oriented


def test_a_service_is_named_and_joined_with_its_pod() -> None:
    book = AddressBook()
    book.cluster = Addresses(services={SERVICE[0]: "empire/laser"}, services_of_backend={SERVER[0]: (SERVICE,)})
    table = RowTable(book)
    began, ended = tell(
        tcp("syn", 1, remote=SERVICE),
        accepted("accept", 1.1),
        tcp("close", 2, remote=SERVICE, initiator="this end", end="fin", **BYTES),
        accepted("close", 2, initiator="other end", end="fin", **BYTES_OF_SERVER),
        table=table,
    )
    flow = began.flow
    assert (flow.server.name, flow.server.who.entity) == ("empire/laser", "service")
    assert flow.backend is not None
    assert (flow.backend.name, flow.backend.port, flow.backend.who.process) == ("empire/deathstar", 8080, "httpd 22")
    assert flow is ended.flow


def test_without_the_clusters_word_a_server_is_joined_by_the_client_alone() -> None:
    for rows in (
        [tcp("syn", 1, remote=SERVICE), accepted("accept", 1.1)],
        [accepted("accept", 1.0), tcp("syn", 1.1, remote=SERVICE)],
    ):
        (event,) = tell(*rows)
        flow = event.flow
        assert (flow.server.ip, flow.server.port) == SERVICE
        assert flow.backend is not None
        assert (flow.backend.name, flow.backend.who.process) == ("empire/deathstar", "httpd 22")


def test_a_server_that_two_flows_of_one_port_could_mean_is_joined_with_neither() -> None:
    events = tell(tcp("syn", 1, remote=SERVICE), tcp("syn", 1, remote=("10.96.0.10", 80)), accepted("accept", 1.1))
    assert [event.flow.backend for event in events] == [None] * 3


def test_a_pod_is_never_taken_for_a_service() -> None:
    book = AddressBook()
    book.saw("10.3.0.1", book.facts("default", "other"))
    events = tell(tcp("syn", 1, remote=("10.3.0.1", 80)), accepted("accept", 1.1), table=RowTable(book))
    assert [event.flow.backend for event in events] == [None] * 2


def test_a_packet_is_reported_by_its_sender_alone() -> None:
    packet = {
        **XWING,
        **{"event": "tcpdump", "timestamp": stamp(1), "direction": "out", "protocol": "TCP", "flags": "SYN"},
        **{"source": CLIENT[0], "source_port": CLIENT[1], "destination": SERVER[0], "destination_port": SERVER[1]},
        "length": 60,
    }
    (event,) = tell(packet, {**packet, **DEATHSTAR, "direction": "in"})
    assert (event.summary, event.observer, event.tcp_flags) == ("SYN, 60B", "client", ("SYN",))


def test_udp_is_reported_at_first_and_at_its_end() -> None:
    table = RowTable(AddressBook())
    events = tell(udp("first", 1), udp("flow", 2, sent=3, received=2), udp("end", 3, sent=3, received=2), table=table)
    assert [(event.kind, event.summary) for event in events] == [
        ("new", "UDP"),
        ("report", "30B out, 20B in"),
        ("close", "end, 30B out, 20B in, 5ns"),
    ]
    assert all(event.flow.oriented for event in events)


def test_a_port_that_udp_uses_again_makes_another_flow() -> None:
    events = tell(udp("first", 1), udp("end", 2), udp("first", 3), udp("end", 4))
    assert [event.kind for event in events] == ["new", "close"] * 2


def test_a_ping_is_a_flow_and_an_error_without_an_answer() -> None:
    began, ended = tell(icmp("first", 1), icmp("end", 2, sent=3, received=3))
    assert (began.summary, began.flow.server.place) == ("echo request", SERVER[0])
    assert (ended.summary, ended.verdict) == ("end, 3 out, 3 in, 5ns", "FORWARDED")
    _, ended = tell(icmp("first", 1), icmp("end", 2, sent=3))
    assert ended.verdict == ERROR


def test_loopback_addresses_of_two_pods_are_two_flows() -> None:
    ends = {"local": ("127.0.0.1", 40000), "remote": ("127.0.0.1", 80)}
    events = tell(tcp("syn", 1, **ends), tcp("syn", 1, DEATHSTAR, **ends))
    assert events[0].flow is not events[1].flow


def test_a_dns_answer_is_reported_and_names_the_address_for_its_client() -> None:
    table = RowTable(AddressBook())
    answer, _, missing = tell(
        dns(1, "deathstar.empire.", [SERVER[0]]),
        tcp("syn", 2),
        dns(3, "nowhere.", [], "NXDOMAIN"),
        table=table,
    )
    assert answer.summary == "DNS A deathstar.empire. NOERROR 10.2.0.3 1.00µs"
    assert answer.is_reply
    assert missing.l7 is not None
    assert missing.l7["rcode"] == "NXDOMAIN"
    (other,) = tell(tcp("syn", 4, HOST, local=("10.9.0.1", 40000)), table=table)
    assert other.flow.server.name == SERVER[0]
    (mine,) = tell(tcp("syn", 4, local=(CLIENT[0], 40001)), table=table)
    assert mine.flow.server.name == "deathstar.empire"


def test_a_question_without_an_answer_is_an_error() -> None:
    (event,) = tell(dns(1, "slow.", [], "NOANSWER", latency=5_000_000_000))
    assert (event.verdict, event.is_reply) == (ERROR, False)


@pytest.mark.parametrize(("retransmits", "times"), [(0, "once"), (2, "3 times")])
def test_a_connect_that_was_given_up_had_no_answer(retransmits: int, times: str) -> None:
    given_up = {"errno": 125, "error": "ECANCELED", "end": "no answer", "duration": 3_000_000_000}
    _, event = tell(tcp("syn", 1), tcp("connect", 4, retransmits=retransmits, **given_up))
    assert (event.verdict, event.summary) == (ERROR, f"no answer, SYN sent {times}, ECANCELED")
    assert event.duration_ns == 3_000_000_000


def test_http_belongs_to_the_connection_that_carries_it() -> None:
    began, request = tell(tcp("syn", 1), http(2, "/attack?x=1", 500))
    assert request.flow is began.flow
    assert request.summary == "HTTP GET deathstar/attack?x=1 500 2.00µs"


GRPC: dict[str, Any] = {"protocol": "gRPC", "method": "POST", "grpc_status": "NOT_FOUND", "grpc_status_raw": 5}


def test_a_call_of_grpc_is_reported_by_its_method_and_its_own_status() -> None:
    _, call = tell(tcp("syn", 1), http(2, "/shop.Carts/Get", 200, **GRPC))
    assert (call.kind, call.verdict, call.summary) == ("http", FORWARDED, "gRPC /shop.Carts/Get NOT_FOUND 2.00µs")


def test_what_is_not_known_of_a_request_of_http_2_is_not_made_up() -> None:
    more: dict[str, Any] = {"protocol": "HTTP/2", "method": None, "target": None, "host": None}
    unknown, reset = tell(
        http(1, "", 0) | more | {"status": None, "latency": None}, http(2, "/a", 0, reset="CANCEL", **GRPC)
    )
    (lost,) = tell(http(1, "/a", 0, error="ECONNRESET"))
    assert (lost.summary, lost.verdict) == ("HTTP GET deathstar/a no answer, ECONNRESET", ERROR)
    assert (unknown.summary, unknown.verdict) == ("HTTP ? ? ?", FORWARDED)
    assert (reset.summary, reset.verdict) == ("gRPC /a no answer, reset CANCEL", ERROR)


def test_a_drop_is_reported_with_its_reason_and_not_for_closed_sockets() -> None:
    (_, event) = tell(tcp("syn", 1), drop(2, "NETFILTER_DROP"))
    assert (event.verdict, event.drop_reason, event.summary) == (DROPPED, "NETFILTER_DROP", "NETFILTER_DROP (SYN)")
    assert tell(drop(1, "QUEUE_PURGE")) == []
    assert [event.kind for event in tell(*both_ends(), drop(3, "NO_SOCKET"))] == ["new", "close"]


@pytest.mark.parametrize(("reason", "shown"), [(None, ""), ("NOT_SPECIFIED", "NOT_SPECIFIED")])
def test_without_a_reason_of_the_kernel_the_last_packets_of_a_flow_are_no_drops(reason: str | None, shown: str) -> None:
    last = [drop(2, reason) | {"flags": flags} for flags in ("ACK", "FIN|ACK")]
    (_, event) = tell(tcp("syn", 1), *last, drop(3, reason))
    assert (event.verdict, event.drop_reason, event.summary) == (DROPPED, shown, f"{shown or 'dropped'} (SYN)")
    assert len(tell(*last)) == 2


@pytest.mark.parametrize("reason", [None, "NOT_SPECIFIED"])
def test_without_a_reason_the_place_tells_drops_of_last_packets_from_tcps_own_frees(reason: str | None) -> None:
    last = drop(2, reason) | {"flags": "FIN|ACK"}
    freed = [last | {"location": f"{place}+0x1a2/0xb40"} for place in ("tcp_v4_rcv", "tcp_rcv_state_process")]
    (_, event) = tell(tcp("syn", 1), *freed, last | {"location": "nf_hook_slow+0xa8/0x100"})
    assert (event.verdict, event.summary) == (DROPPED, f"{reason or 'dropped'} (FIN, ACK)")


def test_of_flows_that_have_ended_only_the_last_ones_are_kept() -> None:
    table = RowTable(AddressBook(), most_ended=3)
    ends = [(CLIENT[0], 1000 + port) for port in range(7)]
    for local in ends:
        tell(tcp("syn", 1, local=local), tcp("close", 1.5, local=local, initiator="this end", end="fin"), table=table)
    late = [tcp("accept", 1.6, DEATHSTAR, SERVER, remote, duration=500_000_000) for remote in ends]
    # The last three are still known, so their servers tell nothing new.
    assert [event.flow.client.port for event in tell(*late, table=table)] == [1000, 1001, 1002, 1003]
    assert table.forgotten == 0


def test_the_hook_at_which_a_rule_dropped_a_packet_stands_beside_the_reason() -> None:
    stack = ["nft_do_chain+0x1", "nft_do_chain_inet+0x2", "nf_hook_slow+0x3", "ip_local_deliver+0x4", "ip_rcv+0x5"]
    (event,) = tell(drop(1, "NETFILTER_DROP") | {"stack": stack})
    assert event.summary == "NETFILTER_DROP input (SYN)"


def test_a_port_without_a_listener_is_reported_once_to_the_client() -> None:
    refused = {"errno": 111, "error": "ECONNREFUSED", "initiator": "this end"}
    began, failed = tell(tcp("syn", 1), drop(1.1, "NO_SOCKET"), tcp("connect", 1.2, **refused))
    assert (began.kind, failed.kind, failed.verdict) == ("new", "error", ERROR)
    assert (failed.summary, failed.drop_reason) == ("ECONNREFUSED, NO_SOCKET (SYN)", "NO_SOCKET")
    # When the one who connects is not seen, the drop is all there is.
    assert [event.verdict for event in tell(drop(1, "NO_SOCKET"))] == [DROPPED]


SEEN = ("172.30.0.11", 51234)
"""As which the server sees the client."""


def masqueraded(sequence: int) -> list[dict[str, Any]]:
    return [
        tcp("syn", 1),
        tcp("connect", 1.1, initial_sequence=4711),
        tcp("accept", 1.2, DEATHSTAR, SERVER, SEEN, duration=1000, initial_sequence=sequence),
        tcp("close", 2, DEATHSTAR, SERVER, SEEN, initiator="other end", end="fin", sent=9, received=7),
    ]


def test_a_client_whose_address_is_translated_is_known_by_the_number_of_its_syn() -> None:
    began, ended = tell(*masqueraded(4711))
    assert ended.flow is began.flow
    assert (ended.flow.client.ip, ended.flow.server.who.pid, ended.flow.backend) == (CLIENT[0], DEATHSTAR["pid"], None)
    assert (ended.flow.sent, ended.flow.received) == (7, 9)


def test_another_number_is_another_connection() -> None:
    events = tell(*masqueraded(4712))
    assert [event.flow.client.ip for event in events] == [CLIENT[0], SEEN[0], SEEN[0]]


def test_a_datagram_that_is_dropped_belongs_to_its_flow() -> None:
    began, dropped = tell(udp("first", 1), drop(2, "SOCKET_RCVBUFF") | {"protocol": "UDP", "flags": ""})
    assert dropped.flow is began.flow
    assert (dropped.verdict, dropped.summary) == (DROPPED, "SOCKET_RCVBUFF")


def test_sctp_is_a_flow_as_udp_is() -> None:
    began, ended = tell(udp("first", 1, protocol="SCTP"), udp("end", 2, sent=7, received=5, protocol="SCTP"))
    assert (began.flow.protocol, began.summary) == ("SCTP", "SCTP")
    assert ended.summary.startswith("end, 70B out, 50B in")


def test_the_oldest_flows_are_forgotten_when_there_are_too_many() -> None:
    table = RowTable(AddressBook(), most=10)
    tell(*(tcp("syn", 1, local=(CLIENT[0], 1000 + port)) for port in range(17)), table=table)
    assert table.forgotten == 7


def test_a_packet_that_a_policy_dropped_names_it_and_whose_it_is() -> None:
    policy = {"policy": "deny-all, web", "rule": "web ingress[0]", "policy_direction": "ingress"}
    table = RowTable(AddressBook())
    table.add(tcp("syn", 1))
    (event,) = table.add(drop(1.1, "SOCKET_FILTER") | policy)
    assert event.summary == "policy deny-all, web/ingress (rule web ingress[0] allows other ports)"
    assert (event.verdict, event.drop_reason) == ("DROPPED", "POLICY_DENIED")
    assert (event.flow.client.who.comm, event.flow.server.name) == ("curl", "empire/deathstar")
    (name,) = {one["kind"] for one in hubble(event)["flow"]["ingress_denied_by"]}
    assert name == "NetworkPolicy"
    assert [one["name"] for one in record(event)["denied_by"]["policies"]] == ["deny-all", "web"]


def test_a_connect_that_a_policy_refused_is_dropped_and_no_error() -> None:
    failed = tcp("connect", 1, errno=1, error="EPERM", policy="no-way-out", rule=None)
    (event,) = RowTable(AddressBook()).add(failed)
    assert (event.verdict, event.summary) == ("DROPPED", "policy no-way-out/egress, EPERM")
    assert hubble(event)["flow"]["egress_denied_by"][0]["namespace"] == "default"


@pytest.mark.parametrize(
    ("row", "side"),
    [
        ({"reason": "NETFILTER_DROP", "stack": ["nf_hook_slow+0x3", "__ip_local_out+0x4"], "pid": 7}, "client"),
        ({"reason": "NETFILTER_DROP", "stack": ["nf_hook_slow+0x3", "ip_local_deliver+0x4"], "pid": 7}, "server"),
        ({"reason": "BPF_CGROUP_EGRESS", "pid": 7}, "client"),
        ({"reason": "NO_SOCKET", "pid": 0}, "server"),
    ],
)
def test_a_packet_dropped_on_its_way_out_belongs_to_its_sender(row: dict[str, Any], side: str) -> None:
    (event,) = tell(drop(1, row["reason"]) | HOST | {"comm": "python3"} | row)
    assert event.observer == side
    (owner, other) = (event.flow.client, event.flow.server)[:: 1 if side == "client" else -1]
    assert owner.reported is not None
    assert other.reported is None
    assert record(event)["direction"] == ("EGRESS" if side == "client" else "INGRESS")
    assert (owner.who.comm, other.who.comm) == ("python3" if row["pid"] else "", "")


def test_the_answer_that_is_dropped_on_its_way_out_belongs_to_the_server() -> None:
    answer = drop(2, "NETFILTER_DROP", SERVER, CLIENT) | {"stack": ["__ip_local_out+0x4"]}
    _, dropped = tell(tcp("syn", 1), answer)
    assert (dropped.observer, dropped.is_reply) == ("server", True)


@pytest.mark.parametrize(("unbound", "target"), [("0.0.0.0", "10.2.0.3"), ("::", "2001:db8::3"), ("::", "10.2.0.3")])
def test_a_connect_that_a_policy_denied_has_the_address_of_its_pod(unbound: str, target: str) -> None:
    book = AddressBook()
    book.cluster.own["default", "xwing"] = ["2001:db8::11", CLIENT[0]]
    denied = {"errno": 1, "error": "EPERM", "policy": "deny", "rule": None}
    (event,) = RowTable(book).add(tcp("connect", 1, local=(unbound, 0), remote=(target, 80), **denied))
    assert event.flow.client.ip == ("2001:db8::11" if ":" in target else CLIENT[0])
    assert event.flow.client.who.comm == "curl"
