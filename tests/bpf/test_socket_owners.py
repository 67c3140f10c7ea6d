"""Gadgets of one run that share the owners of sockets: each knows the same processes as with programs of its own."""

import os
from contextlib import ExitStack

import pytest

from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.bpf.socket_owners import SocketOwners
from kubectl_gadget.agent.session.start_sources import make_sources
from kubectl_gadget.catalogue import object_bytes
from kubectl_gadget.session.recipes.flow_gadgets import FlowGadgets
from kubectl_gadget.session.request import build
from tests.agent.node import node_context
from tests.bpf import network, test_packets, test_trace_tcp, test_trace_udp
from tests.bpf.network import in_namespace
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
OWN = {"socket_made", "connecting_v4", "sending_v4", "accepted", "owner_executes", "find_users"}


def test_those_that_come_later_know_the_same_processes_without_programs_of_their_own() -> None:
    owners = SocketOwners()
    with (
        Tracer("trace_tcpdrop", owners=owners, udp=True) as drops,
        Tracer("trace_udp", owners=owners, interval=0) as udp,
        Tracer("trace_dns", owners=owners, port=test_packets.SERVERS) as dns,
    ):
        assert set(drops.programs) >= OWN
        assert not OWN & {*udp.programs, *dns.programs}
        dns.gadget = dns.gadget.as_sent()
        pid, (with_port, _) = in_namespace(test_packets.stream)
        payloads = [record for record in dns.records() if record["pid"] == pid and record["payload_bytes"]]
        assert {record["local_port"] for record in payloads} == {test_packets.SERVERS, with_port}
        assert not test_trace_tcp.of(pid, udp)

        pid, (client, server) = in_namespace(lambda: test_trace_udp.talk(network.V4, connect=False))
        ended = test_trace_udp.of(pid, udp, test_trace_udp.END)
        assert {record["local_port"] for record in ended} == {client, server}
        assert drops.lost == udp.lost == dns.lost == 0


def test_other_filters_need_other_owners() -> None:
    owners = SocketOwners()
    with (
        Tracer("trace_tcpdrop", owners=owners, variables={"gadget_filter_pid": os.getpid()}),
        Tracer("trace_udp", owners=owners) as udp,
    ):
        assert "socket_made" in udp.programs


def test_a_gadget_that_keeps_some_owners_keeps_them_for_itself() -> None:
    owners = SocketOwners()
    with Tracer("trace_udp", owners=owners), Tracer("trace_dns", owners=owners) as dns:
        assert "socket_made" in dns.programs


def test_of_the_gadgets_of_flows_one_keeps_the_owners() -> None:
    runs = FlowGadgets(http=True).runs()
    objects = [object_bytes(run.gadget.name, os.uname().machine) for run in runs]
    found = {}
    with ExitStack() as resources:
        verdicts = HashMap("verdicts", 16)
        resources.callback(verdicts.close)
        context = node_context({"gadget_containers": verdicts.fd})
        resources.callback(context.close)
        for source in make_sources(build(runs, [{}] * len(runs), 1 << 16).gadgets, objects, context):
            resources.callback(source.close)
            resources.callback(source.detach)
            found[source.started().name] = "socket_made" in vars(source)["_programs"].object.chosen
    assert [name for name, keeps in found.items() if keeps] == ["trace_tcpdrop"]
    assert {"trace_tcp", "trace_udp", "trace_icmp", "trace_dns", "trace_http"} < set(found)
