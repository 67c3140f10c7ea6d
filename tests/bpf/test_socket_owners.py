"""Gadgets of one run that share the owners of sockets: each knows the same processes as with programs of its own."""

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import cast

import pytest

from kubectl_gadget.agent.bpf.links import CAUSE
from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.bpf.packet_programs import SocketOwners
from kubectl_gadget.agent.bpf.syscall_programs import SyscallObject
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.agent.sources.source import make_sources
from kubectl_gadget.errors import AgentError
from kubectl_gadget.flows.run import FlowGadgets
from kubectl_gadget.gadgets import object_bytes
from kubectl_gadget.run.request import build
from tests.agent.node import node_context
from tests.bpf import map_shares, network, test_packets, test_trace_tcp, test_trace_udp
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


def test_connections_are_left_to_trace_tcp() -> None:
    owners = SocketOwners()
    with (
        Tracer("trace_tcp", owners=owners, reports=True, report_interval=3_600_000) as tcp,
        Tracer("trace_tcpdrop", owners=owners) as drops,
        Tracer("trace_dns", owners=owners, port=test_packets.SERVERS) as dns,
    ):
        assert "connection_gone" not in {*drops.programs, *dns.programs}
        dns.gadget = dns.gadget.as_sent()
        pid, (with_port, _) = in_namespace(test_packets.stream)
        payloads = [record for record in dns.records() if record["pid"] == pid and record["payload_bytes"]]
        assert {record["local_port"] for record in payloads} == {test_packets.SERVERS, with_port}
        rows = test_trace_tcp.of(pid, tcp)
        assert [row["operation"] for row in rows].count(test_packets.SYN) == 2  # and none of listeners
        assert drops.lost == tcp.lost == dns.lost == 0


def test_the_name_that_trace_tcp_asks_for_is_no_other_gadgets_filter() -> None:
    owners, variables = SocketOwners(), {"gadget_filter_comm": "python"}
    with (
        Tracer("trace_tcp", owners=owners, variables=variables),
        Tracer("trace_tcpdrop", owners=owners, variables=variables) as drops,
    ):
        assert "connection_gone" in drops.programs


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


def make_sockets() -> None:
    """Of both protocols, at both ends."""
    test_trace_udp.talk(network.V4, connect=True)
    test_packets.stream()


SHARES, OWNERS = "gadget_owner_shares", "gadget_owners"


@pytest.mark.parametrize("gadget", ["trace_udp", "trace_tcp"])
def test_a_container_with_many_sockets_leaves_room_for_others(gadget: str) -> None:
    with Tracer(gadget) as tracer:
        map_shares.fill(tracer, SHARES, OWNERS, share=1)
        before = map_shares.entries(tracer, SHARES, share=0)
        for _ in range(8):
            pid, _ = in_namespace(make_sockets)
            assert test_trace_tcp.of(pid, tracer)
        assert tracer.lost == 0
        # Other processes of this machine have a few at most.
        assert map_shares.entries(tracer, SHARES, share=0) < before + 20, "entries are given back"


@pytest.mark.parametrize("gadget", ["trace_udp", "trace_tcp"])
def test_sockets_beyond_a_containers_share_count_as_lost(gadget: str) -> None:
    with Tracer(gadget) as tracer:
        map_shares.fill(tracer, SHARES, OWNERS, share=0)
        in_namespace(make_sockets)
        assert tracer.lost >= 2


def test_raw_sockets_for_tcp_give_their_room_back() -> None:
    """The program that sees the end of TCP sockets does not see theirs."""
    count = 200
    with Tracer("trace_tcpdrop") as tracer, ExitStack() as sockets:
        before = map_shares.entries(tracer, SHARES, share=0)
        for _ in range(count):
            sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
        assert map_shares.entries(tracer, SHARES, share=0) >= before + count
        sockets.close()
        assert map_shares.entries(tracer, SHARES, share=0) < before + 20


@contextmanager
def gadgets_of_flows() -> Iterator[dict[str, GadgetSource]]:
    """Those of one run of `flows`, by name."""
    runs = FlowGadgets(http=True).runs()
    objects = [object_bytes(run.gadget.name, os.uname().machine) for run in runs]
    with ExitStack() as resources:
        verdicts = HashMap("verdicts", 16)
        resources.callback(verdicts.close)
        context = node_context({"gadget_containers": verdicts.fd})
        resources.callback(context.close)
        sources = {}
        for source in make_sources(build(runs, [{}] * len(runs), 1 << 16).gadgets, objects, context):
            resources.callback(source.close)
            resources.callback(source.detach)
            sources[source.started().name] = cast(GadgetSource, source)
        yield sources


def test_of_the_gadgets_of_flows_one_keeps_the_owners_and_says_so() -> None:
    with gadgets_of_flows() as sources:
        assert {"trace_tcp", "trace_udp", "trace_icmp", "trace_dns", "trace_http"} < set(sources)
        programs = {
            name: {*chain(*(each.chosen for each in source.started().programs))} for name, source in sources.items()
        }
        assert [name for name, own in programs.items() if "socket_made" in own] == ["trace_tcpdrop"]
        for name, source in sources.items():
            assert programs[name] == set(source.programs.object.chosen)
            assert all(len(each.chosen) == len(each.hooks) for each in source.started().programs)


def test_every_gadget_that_needs_the_owners_says_that_they_are_no_longer_kept() -> None:
    with gadgets_of_flows() as sources:
        assert not any(CAUSE in source.stats().lost for source in sources.values())
        (link,) = sources["trace_tcpdrop"].programs.object.link_fds("socket_made")
        assert ctypes.CDLL("libbpf.so.1").bpf_link_detach(link) == 0
        found = {name: set(source.stats().lost.get(CAUSE, ())) for name, source in sources.items()}
        needed = {name for name, source in sources.items() if "socket_made" in source.programs.object.program_names}
        assert needed > {"trace_tcpdrop", "trace_udp", "trace_dns"}
        assert found == {name: {"socket_made"} if name in needed else set() for name in sources}


def test_every_gadget_that_needs_the_owners_says_that_those_of_connections_are_no_longer_kept() -> None:
    with gadgets_of_flows() as sources:
        tcp = cast(SyscallObject, sources["trace_tcp"].programs.object)
        for entry in tcp._followed["accept_exit"]:
            tcp.calls.remove(entry)
        found = {name for name, source in sources.items() if "accept_exit" in source.stats().lost.get(CAUSE, ())}
        assert found >= {"trace_tcp", "trace_tcpdrop", "trace_dns", "trace_http"}


def test_if_one_gadget_cannot_be_loaded_nothing_of_the_others_is_left() -> None:
    runs = FlowGadgets(http=True).runs()
    objects = [object_bytes(run.gadget.name, os.uname().machine) for run in runs]
    specs = build(runs, [{}] * len(runs), 1 << 16).gadgets
    verdicts = HashMap("verdicts", 16)
    # The first time, so that what is kept for later runs is open.
    for bad in (None, 1, 3):
        context = node_context({"gadget_containers": verdicts.fd})
        given = [elf[:100] if number == bad else elf for number, elf in enumerate(objects)]
        before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        if bad is None:
            for source in reversed(made := make_sources(specs, given, context)):
                source.detach()
            for source in made:
                source.close()
        else:
            with pytest.raises(AgentError, match=f"gadget {specs[bad].name}"):
                make_sources(specs, given, context)
        context.close()
        if bad is not None:
            assert len(os.listdir("/proc/self/fd")) <= before
        assert threading.active_count() == threads
    verdicts.close()
