"""-o jsonpb is read by a strict reader of Hubble's messages: no field and no word that it does not know."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.hubble import by_reason
from tests.flows.rows import CLIENT, RowTable, dns, drop, http, icmp, tcp, udp
from tests.flows.test_formats import printed
from tests.strict_reader import strict_reader

_ENUMS = {
    "Verdict": "VERDICT_UNKNOWN FORWARDED DROPPED ERROR",
    "FlowType": "UNKNOWN_TYPE L3_L4 L7 SOCK",
    "DropReason": "DROP_REASON_UNKNOWN INVALID_SOURCE_MAC=130 INVALID_DESTINATION_MAC INVALID_SOURCE_IP POLICY_DENIED"
    " INVALID_PACKET_DROPPED UNSUPPORTED_L3_PROTOCOL=139 UNKNOWN_L4_PROTOCOL=142 UNKNOWN_L3_TARGET_ADDRESS=150"
    " STALE_OR_UNROUTABLE_IP ERROR_WHILE_CORRECTING_L3_CHECKSUM=153 ERROR_WHILE_CORRECTING_L4_CHECKSUM"
    " INVALID_IPV6_EXTENSION_HEADER=156 IP_FRAGMENTATION_NOT_SUPPORTED FIB_LOOKUP_FAILED=169"
    " FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND=175 FORBIDDEN_ICMPV6_MESSAGE SOCKET_LOOKUP_FAILED=178"
    " SOCKET_ASSIGN_FAILED POLICY_DENY=181 INVALID_VNI=183 TTL_EXCEEDED=196",
    "Direction": "TRAFFIC_DIRECTION_UNKNOWN INGRESS EGRESS",
    "Point": "UNKNOWN_POINT TO_NETWORK=11",
    "IPVersion": "IP_NOT_USED IPv4 IPv6",
    "L7Type": "UNKNOWN_L7_TYPE REQUEST RESPONSE SAMPLE",
}
_MESSAGES = {
    "Response": "flow:Flow node_name:string time:google.protobuf.Timestamp",
    "Flow": "time:google.protobuf.Timestamp uuid:string verdict:Verdict drop_reason:uint32 IP:IP l4:Layer4"
    " source:Endpoint destination:Endpoint Type:FlowType node_name:string source_names:string*"
    " destination_names:string* l7:Layer7 event_type:EventType source_service:Service destination_service:Service"
    " traffic_direction:Direction trace_observation_point:Point drop_reason_desc:DropReason"
    " is_reply:google.protobuf.BoolValue extensions:google.protobuf.Any ingress_denied_by:Policy*"
    " egress_denied_by:Policy* Summary:string",
    "IP": "source:string destination:string ipVersion:IPVersion encrypted:bool",
    "Layer4": "TCP:TCP UDP:Ports SCTP:Ports ICMPv4:ICMP ICMPv6:ICMP",
    "TCP": "source_port:uint32 destination_port:uint32 flags:Flags",
    "Flags": "FIN:bool SYN:bool RST:bool PSH:bool ACK:bool URG:bool ECE:bool CWR:bool NS:bool",
    "Ports": "source_port:uint32 destination_port:uint32",
    "ICMP": "type:uint32 code:uint32",
    "Endpoint": "ID:uint32 identity:uint32 namespace:string labels:string* pod_name:string workloads:Workload*",
    "Workload": "name:string kind:string",
    "Service": "name:string namespace:string",
    "EventType": "type:int32 sub_type:int32",
    "Policy": "name:string namespace:string labels:string* revision:uint64 kind:string",
    "Layer7": "type:L7Type latency_ns:uint64 dns:DNS http:HTTP",
    "DNS": "query:string ips:string* ttl:uint32 cnames:string* rcode:uint32 qtypes:string* rrtypes:string*",
    "HTTP": "code:uint32 method:string url:string protocol:string headers:Header*",
    "Header": "key:string value:string",
}
"""The fields of Hubble's messages that are used here, with their types; * for lists."""
_CLIENT_PRINTS_SUCCESS = 0
"""for an event that is a drop and has this sub type"""
_DROP, _POLICY_DENIED, _POLICY_DENY = 1, 133, 181


@pytest.fixture(scope="module", name="response")
def a_reader() -> Callable[[str], Any]:
    return strict_reader(_ENUMS, _MESSAGES, "Response")


def test_each_kind_of_event_is_read_by_a_strict_reader(response: Callable[[str], Any]) -> None:
    denied = {"policy": "deny-all", "rule": None, "policy_direction": "ingress"}
    rows = [
        tcp("syn", 1),
        tcp("connect", 1, errno=111, error="ECONNREFUSED"),
        drop(1.4, "NETFILTER_DROP"),
        drop(1.5, "SOCKET_FILTER") | denied,
        tcp("connect", 1.6, errno=1, error="EPERM", policy="no-way-out", rule=None),
        udp("first", 2),
        icmp("first", 2),
        dns(3, "deathstar.empire.", [], rcode="NXDOMAIN"),
        dns(3, "deathstar.empire.", [], rcode="NOANSWER"),
        http(4, "/attack", 200),
        http(4, "/attack", 0),
    ]
    events = [event for row in rows for event in RowTable(AddressBook()).add(row)]
    events += RowTable(AddressBook(), has_dns=False).add(udp("first", 2))
    found = [response(line).flow for line in printed("jsonpb", events=events).splitlines()]
    assert len(found) == len(events)
    denials = [list(flow.ingress_denied_by) + list(flow.egress_denied_by) for flow in found]
    assert [policy.name for policies in denials for policy in policies] == ["deny-all", "no-way-out"]
    assert [flow.l7.dns.rcode for flow in found if flow.l7.dns.query] == [3, 0]


@pytest.mark.parametrize("reason", [*by_reason(), "A_REASON_OF_LATER_KERNELS"])
def test_a_drop_has_hubbles_number_for_the_kernels_reason(response: Callable[[str], Any], reason: str) -> None:
    (event,) = RowTable(AddressBook()).add(drop(1, reason))
    flow = response(printed("jsonpb", events=[event])).flow
    assert flow.event_type.type == _DROP
    assert flow.event_type.sub_type != _CLIENT_PRINTS_SUCCESS
    assert flow.drop_reason == flow.event_type.sub_type
    assert flow.drop_reason_desc in (flow.event_type.sub_type, 0)
    assert reason in flow.Summary


def test_what_a_rule_or_a_policy_refuses_is_denied_in_hubbles_words(response: Callable[[str], Any]) -> None:
    denied = {"policy": "deny-all", "rule": None, "policy_direction": "ingress"}
    rows = [
        drop(1, "SOCKET_FILTER") | denied,
        tcp("connect", 2, errno=1, error="EPERM", policy="no-way-out", rule=None),
        drop(3, "NETFILTER_DROP"),
    ]
    events = [event for row in rows for event in RowTable(AddressBook()).add(row)]
    found = [response(line).flow for line in printed("jsonpb", events=events).splitlines()]
    assert [flow.event_type.sub_type for flow in found] == [_POLICY_DENIED, _POLICY_DENIED, _POLICY_DENY]


def test_a_dropped_packet_of_an_unknown_flow_comes_from_its_sender() -> None:
    denied = {"policy": "deny-all", "rule": None, "policy_direction": "ingress"}
    (event,) = RowTable(AddressBook()).add(drop(1, "SOCKET_FILTER") | denied)
    flow = json.loads(printed("jsonpb", events=[event]))["flow"]
    assert flow["IP"]["source"] == CLIENT[0]
    assert flow["is_reply"] is False
    assert "pod_name" not in flow["source"]
    assert flow["destination"]["pod_name"] == "deathstar"
