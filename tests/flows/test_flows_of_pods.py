"""`kubectl gadget flows` with pods that talk over bridges and a router: exact counts, seen from both ends."""

import array
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod
from tests.bpf import packet_sockets
from tests.bpf.network import alone_on_cpu, sent_again
from tests.conftest import why_no_bpf, why_no_containers
from tests.flows.pod_network import PodNetwork
from tests.vm import modules
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
    pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed"),
]
TIMES, SENT, RECEIVED, MUCH = 31, 7001, 301, 1_000_003
SHORT = 50_000
PORTS = 1009
FIRST_PORT = 20_000
"""Below those that the kernel gives: an earlier connection in TIME_WAIT without SO_REUSEADDR keeps its port from us."""
SERVICE = "10.96.0.9"
Event = dict[str, Any]


@pytest.fixture(name="net", scope="module")
def a_network() -> Iterator[PodNetwork]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    with PodNetwork(Path("/run")) as net:
        yield net


@pytest.fixture(name="xwing", scope="module")
def a_client(net: PodNetwork) -> DemoPod:
    return net.pod(1, "alliance", "xwing")


@pytest.fixture(name="deathstar", scope="module")
def a_server(net: PodNetwork) -> DemoPod:
    return net.pod(2, "empire", "deathstar")


@pytest.fixture(autouse=True)
def no_rules(net: PodNetwork) -> Iterator[None]:
    yield
    net.forget_deeds()
    net.nft("")


def server(pipe: Connection, times: int = TIMES, port: int = 0, host: str = "0.0.0.0") -> None:
    """Takes connections: reads until the end, answers, closes."""
    with socket.create_server((host, port), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        for _ in range(times):
            accepted, _ = listener.accept()
            with accepted:
                while accepted.recv(65536):
                    continue
                accepted.sendall(bytes(RECEIVED))


def client(_: Connection, host: str, port: int, times: int = TIMES) -> list[int]:
    """Connects, asks and hears the answer. Returns its ports."""
    ports = []
    for _ in range(times):
        with socket.create_connection((host, port)) as sock:
            ports.append(sock.getsockname()[1])
            sock.sendall(bytes(SENT))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                continue
    return ports


def of_protocol(events: list[Event], protocol: str, kind: str) -> list[Event]:
    return [event for event in events if (event["protocol"], event["kind"]) == (protocol, kind)]


def the_only(events: list[Event], protocol: str, kind: str) -> Event:
    found = of_protocol(events, protocol, kind)
    assert len(found) == 1, found
    return found[0]


def ends(event: Event) -> tuple[str, str]:
    return event["source"]["name"], (event["backend"] or event["destination"])["name"]


def test_connections_of_two_pods_are_each_one_flow_with_both_processes(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, server)
        port = asked.heard()
        asking = net.start(xwing, client, net.addresses["deathstar"], port)
        ports = asking.heard()
        asked.heard()
    began, ended = (of_protocol(events, "TCP", kind) for kind in ("new", "close"))
    assert [event["source"]["port"] for event in began] == ports
    assert len(ended) == TIMES
    assert {ends(event) for event in began + ended} == {("alliance/xwing", "empire/deathstar")}
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}
    assert {(event["source"]["pid"], event["destination"]["pid"]) for event in ended} == {(asking.pid, asked.pid)}
    assert {(event["source"]["comm"], event["destination"]["comm"]) for event in ended} == {("client", "server")}
    assert {tuple(event["seen_by"]) for event in ended} == {("client", "server")}
    assert len({event["flow_id"] for event in ended}) == len(set(ports))
    assert {event["verdict"] for event in events} == {"FORWARDED"}


def test_a_service_that_nftables_translates_is_joined_with_its_backend(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, server)
        port = asked.heard()
        target = f"{net.addresses['deathstar']}:{port}"
        net.nft(
            "table ip t { chain c { type nat hook prerouting priority -100; "
            f"ip daddr {SERVICE} tcp dport 80 dnat to {target}; }} }}"
        )
        asking = net.start(xwing, client, SERVICE, 80)
        ports = asking.heard()
        asked.heard()
    began, ended = (of_protocol(events, "TCP", kind) for kind in ("new", "close"))
    assert [event["source"]["port"] for event in began] == ports
    assert len(ended) == TIMES
    assert {(event["destination"]["ip"], event["destination"]["port"]) for event in ended} == {(SERVICE, 80)}
    assert {(event["backend"]["name"], event["backend"]["port"]) for event in ended} == {("empire/deathstar", port)}
    assert {event["backend"]["pid"] for event in ended} == {asked.pid}
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}


def test_a_client_whose_address_is_translated_is_joined_with_its_server(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    source = net.addresses["xwing"]
    net.nft(
        "table ip t { chain c { type nat hook postrouting priority 100; "
        f"ip saddr {source} ip protocol tcp masquerade random; }} }}"
    )
    with net.flows() as events:
        asked = net.start(deathstar, server)
        asking = net.start(xwing, client, net.addresses["deathstar"], asked.heard())
        ports = asking.heard()
        asked.heard()
    began, ended = (of_protocol(events, "TCP", kind) for kind in ("new", "close"))
    assert [(event["source"]["ip"], event["source"]["port"]) for event in began] == [(source, port) for port in ports]
    assert len(ended) == TIMES
    assert {(event["source"]["pid"], event["destination"]["pid"]) for event in ended} == {(asking.pid, asked.pid)}
    assert {tuple(event["seen_by"]) for event in ended} == {("client", "server")}
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}


def datagrams(pipe: Connection) -> None:
    """Answers to datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        pipe.send(sock.getsockname()[1])
        for _ in range(TIMES):
            _, address = sock.recvfrom(1000)
            sock.sendto(bytes(37), address)


def questions(_: Connection, host: str, port: int) -> list[int]:
    """Sends datagrams, each from another port."""
    ports = []
    with contextlib.ExitStack() as open_together:  # so that no two have the same port
        for _ in range(TIMES):
            sock = open_together.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.sendto(bytes(100), (host, port))
            sock.recv(1000)
            ports.append(sock.getsockname()[1])
    return ports


def test_datagrams_of_two_pods_are_one_flow_for_each_port(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, datagrams)
        asking = net.start(xwing, questions, net.addresses["deathstar"], asked.heard())
        ports = asking.heard()
        asked.heard()
    began, ended = (of_protocol(events, "UDP", kind) for kind in ("new", "close"))
    assert [event["source"]["port"] for event in began] == ports
    assert len(ended) == TIMES
    assert {ends(event) for event in ended} == {("alliance/xwing", "empire/deathstar")}
    assert {(event["sent"], event["received"]) for event in ended} == {(100, 37)}
    assert {(event["sent_packets"], event["received_packets"]) for event in ended} == {(1, 1)}


def ping(_: Connection, host: str) -> int:
    command = ["busybox", "ping", "-c", "7", "-i", "0.1", host]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def test_pings_are_one_flow_with_all_requests_and_replies(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows() as events:
        assert net.start(xwing, ping, net.addresses["deathstar"]).heard() == 0
    ended = the_only(events, "ICMP", "close")
    assert (ended["sent_packets"], ended["received_packets"]) == (7, 7)
    assert (ended["source"]["name"], ended["destination"]["ip"]) == ("alliance/xwing", net.addresses["deathstar"])


def nameserver(pipe: Connection, address: str) -> None:
    # It ends with this process, however that ends: one that stayed would answer in the next one's place.
    ends = ["setpriv", "--pdeathsig", "TERM"]
    program = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]
    names = [f"--address=/deathstar.example/{address}", "--local=/nowhere.example/", "--pid-file="]
    with subprocess.Popen([*ends, *program, *names, "--log-facility=/dev/null"]) as process:
        # A question before it listens is lost. 35 is port 53.
        wait_until(lambda: ":0035 " in Path("/proc/net/udp").read_text(), over=lambda: process.poll() is not None)
        pipe.send(process.pid)
        pipe.recv()
        process.terminate()


def resolver(_: Connection, host: str) -> list[str]:
    import dns.message
    import dns.query
    import dns.rcode

    found = []
    for name in ["deathstar.example"] * 5 + ["x.nowhere.example"] * 3:
        query = dns.message.make_query(name, "A")
        answer = dns.query.udp(query, host, timeout=60)
        found.append(dns.rcode.to_text(answer.rcode()))
    return found


@pytest.mark.skipif(not shutil.which("dnsmasq"), reason="dnsmasq is not installed")
def test_questions_to_dnsmasq_are_reported_with_answers_and_name_what_is_connected_to(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    nobody = f"{net.block}.2.77"
    with net.flows() as events:
        serving = net.start(deathstar, nameserver, nobody)
        server_pid = serving.heard()
        answers = net.start(xwing, resolver, net.addresses["deathstar"]).heard()
        refused = net.start(xwing, refused_by, nobody, 81)
        refused.heard()
        serving.say("end")
    told = [event for event in events if event["kind"] == "dns" and event["is_reply"]]
    assert [event["l7"]["rcode"] for event in told] == answers
    assert Counter(event["l7"]["name"].rstrip(".") for event in told) == {
        "deathstar.example": 5,
        "x.nowhere.example": 3,
    }
    assert {ends(event) for event in told} == {("alliance/xwing", "empire/deathstar")}
    assert {event["destination"]["pid"] for event in told} <= {server_pid, None}
    failed = [event for event in events if event["destination"]["ip"] == nobody]
    assert {name for event in failed for name in event["destination"]["names"]} == {"deathstar.example"}


class Answer(BaseHTTPRequestHandler):
    """200 for /, 404 for all else."""

    def do_GET(self) -> None:
        body = b"hello"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: Any) -> None:
        return


def web_server(pipe: Connection) -> None:
    with HTTPServer(("0.0.0.0", 0), Answer) as found:
        pipe.send(found.server_address[1])
        found.serve_forever()


def browser(_: Connection, host: str, port: int) -> None:
    for number in range(TIMES):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{host}:{port}/{'' if number % 3 else 'missing'}").read()


def test_requests_are_reported_once_with_their_status(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows("--http-rows") as events:
        port = net.start(deathstar, web_server).heard()
        net.start(xwing, browser, net.addresses["deathstar"], port).heard()
    told = [event for event in events if event["kind"] == "http"]
    missing = len(range(0, TIMES, 3))
    assert Counter((event["l7"]["target"], event["l7"]["status"]) for event in told) == {
        ("/", 200): TIMES - missing,
        ("/missing", 404): missing,
    }
    assert {ends(event) for event in told} == {("alliance/xwing", "empire/deathstar")}


def carts(_: Connection) -> None:
    """A server and a client of gRPC in one pod."""
    from tests.bpf import grpc_carts

    grpc_carts.call(TIMES, 20_011)


def test_calls_of_grpc_are_reported_once_with_their_method_and_status(net: PodNetwork, xwing: DemoPod) -> None:
    with net.flows("--protocol", "grpc", "--loopback") as events:
        net.start(xwing, carts).heard()
    assert Counter((event["l7"]["target"], event["l7"]["grpc_status"]) for event in events) == {
        ("/shop.Carts/Get", "OK"): TIMES,
        ("/shop.Carts/Fail", "NOT_FOUND"): TIMES,
        ("/shop.Carts/List", "OK"): 1,
        ("/shop.Other/None", "UNIMPLEMENTED"): 1,
    }
    assert {event["source"]["name"] for event in events} == {"alliance/xwing"}


def refused_by(_: Connection, host: str, port: int, tries: int | None = None) -> str:
    """Tries to connect; the error's name."""
    import errno

    with socket.socket() as sock:
        if tries is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, tries)
        try:
            sock.connect((host, port))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return ""


@pytest.mark.parametrize("why", ["ECONNREFUSED", "EHOSTUNREACH", "ETIMEDOUT"])
def test_connects_that_fail_are_errors_as_the_process_saw_them(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod, why: str
) -> None:
    rules = {
        "ECONNREFUSED": "",
        "EHOSTUNREACH": "reject with icmp type host-unreachable;",
        "ETIMEDOUT": "drop;",
    }
    if rules[why]:
        net.nft(f"table ip t {{ chain c {{ type filter hook forward priority 0; tcp dport 81 {rules[why]} }} }}")
    with net.flows("--verdict", "ERROR") as events:
        asking = net.start(xwing, refused_by, net.addresses["deathstar"], 81, 1)
        assert asking.heard() == why
    (event,) = events
    assert (event["error"], event["kind"], event["source"]["pid"]) == (why, "error", asking.pid)
    assert (event["source"]["name"], event["destination"]["port"]) == ("alliance/xwing", 81)
    assert event["drop_reason"] == ("NO_SOCKET" if why == "ECONNREFUSED" else None)


def full_socket(pipe: Connection) -> int:
    """Reads only when all has been sent. Returns how many datagrams came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind(("0.0.0.0", 0))
        pipe.send(sock.getsockname()[1])
        pipe.recv()
        came = 0
        sock.setblocking(False)
        while True:
            try:
                sock.recv(SENT)
            except BlockingIOError:
                return came
            came += 1


def floods(_: Connection, host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(TIMES):
            sock.sendto(bytes(1009), (host, port))


def past_ip(_: Connection, way: str, source: str, host: str) -> None:
    packet_sockets.send(way, "eth0", (source, 4321), (host, 7777), [b"x" * 41] * TIMES, packet_sockets.BROADCAST)


@pytest.mark.parametrize(("way", "kind"), [("datagrams", "packet"), ("xdp", "xdp")])
def test_what_is_sent_past_ip_is_a_flow_that_says_so(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod, way: str, kind: str
) -> None:
    with net.flows() as events:
        net.start(xwing, past_ip, way, net.addresses["xwing"], net.addresses["deathstar"]).heard()
    ours = [event for event in events if event["destination"]["port"] == 7777]
    # The other pod sends nothing, so it is known by its address alone.
    assert {(*ends(event), event["protocol"], event["source"]["socket"]) for event in ours} == {
        ("alliance/xwing", net.addresses["deathstar"], "UDP", kind)
    }
    assert {event["source"]["comm"] for event in ours} == {"past_ip"}
    assert ours[-1]["sent_packets"] == TIMES


def test_datagrams_that_a_full_socket_drops_are_dropped_in_their_flow(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, full_socket)
        port = asked.heard()
        net.start(xwing, floods, net.addresses["deathstar"], port).heard()
        asked.say("read")
        came = asked.heard()
    dropped = [event for event in events if event["verdict"] == "DROPPED"]
    assert len(dropped) == TIMES - came > 0
    assert {(*ends(event), event["drop_reason"], event["protocol"]) for event in dropped} == {
        ("alliance/xwing", "empire/deathstar", "SOCKET_RCVBUFF", "UDP")
    }
    assert {event["flow_id"] for event in dropped} == {of_protocol(events, "UDP", "new")[0]["flow_id"]}
    assert {event["destination"]["pid"] for event in dropped} == {asked.pid}


def test_what_netfilter_drops_is_dropped_with_its_reason(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    net.nft("table ip t { chain c { type filter hook input priority 0; tcp dport 81 drop; } }", deathstar)
    try:
        with net.flows() as events:
            assert net.start(xwing, refused_by, net.addresses["deathstar"], 81, 1).heard() == "ETIMEDOUT"
    finally:
        net.nft("", deathstar)
    # A FIN of an earlier test may be dropped only now.
    dropped = [event for event in events if event["verdict"] == "DROPPED" and event["destination"]["port"] == 81]
    assert {(event["drop_reason"], event["summary"]) for event in dropped} == {
        ("NETFILTER_DROP", "NETFILTER_DROP input (SYN)")
    }
    assert {(event["source"]["name"], event["destination"]["ip"]) for event in dropped} == {
        ("alliance/xwing", net.addresses["deathstar"])
    }


def aborts(_: Connection, host: str, port: int) -> None:
    """Closes with a reset, since there is no time to linger."""
    for _ in range(TIMES):
        with socket.create_connection((host, port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def takes(pipe: Connection, times: int) -> None:
    """Takes connections and waits for their end."""
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        for _ in range(times):
            accepted, _ = listener.accept()
            with accepted:
                try:
                    while accepted.recv(65536):
                        continue
                except ConnectionResetError:
                    continue


def test_connections_that_are_reset_end_as_reset(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, takes, TIMES)
        net.start(xwing, aborts, net.addresses["deathstar"], asked.heard()).heard()
        asked.heard()
    ended = of_protocol(events, "TCP", "close")
    assert len(ended) == TIMES
    assert {event["summary"].partition(",")[0] for event in ended} == {"RST"}


TCP_CLOSE = 7
"""State of a socket that has no connection any more."""


def talks(pipe: Connection, host: str, port: int, patience_ms: int = 0) -> int:
    """Connects; sends on the first request, and reports how many segments were sent again on the second."""
    with contextlib.nullcontext() if patience_ms else alone_on_cpu(), socket.create_connection((host, port)) as sock:
        if patience_ms:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
        pipe.send("connected")
        pipe.recv()
        sock.sendall(bytes(SENT))
        wait_until(lambda: sent_again(sock))
        pipe.send("sent again")
        pipe.recv()
        if patience_ms:
            # Not by its error: the router's word is one as well, before the connection is over.
            wait_until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE)
            return 0
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        return sent_again(sock)


_NOTHING_PASSES = "table ip t { chain c { type filter hook forward priority 0; drop; } }"


def test_segments_that_are_sent_again_are_counted(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, takes, 1)
        asking = net.start(xwing, talks, net.addresses["deathstar"], asked.heard())
        assert asking.heard() == "connected"
        net.nft(_NOTHING_PASSES)
        asking.say("send")
        assert asking.heard() == "sent again"
        net.nft("")
        asking.say("end")
        again = asking.heard()
        asked.heard()
    ended = the_only(events, "TCP", "close")
    assert ended["retransmits"] == again > 0
    assert ended["sent"] == SENT


@pytest.mark.parametrize("why", ["all is dropped", "the cable is cut", "the pod is gone"])
def test_a_connection_whose_other_end_is_silent_ends_by_timeout(net: PodNetwork, xwing: DemoPod, why: str) -> None:
    name = why.replace(" ", "-")
    other = net.pod(2, "empire", name)
    with net.flows() as events:
        asked = net.start(other, takes, 1)
        asking = net.start(xwing, talks, net.addresses[name], asked.heard(), 1000)
        asking.heard()
        match why:
            case "all is dropped":
                net.nft(_NOTHING_PASSES)
            case "the cable is cut":
                net.router("link", "set", net.cables[name], "down")
            case "the pod is gone":
                net.router("link", "del", net.cables[name])
        asking.say("send")
        assert asking.heard() == "sent again"
        asking.say("wait")
        asking.heard()
    ended = the_only(events, "TCP", "close")
    # When the router has found out first, what it says is the error.
    assert (ended["summary"].partition(",")[0], ended["error"] in ("ETIMEDOUT", "EHOSTUNREACH")) == ("timeout", True)
    assert (ended["source"]["pid"], ended["destination"]["pid"]) == (asking.pid, asked.pid)


def sends_much(_: Connection, host: str, port: int) -> tuple[int, int]:
    """Sends and waits for the end. Returns how many segments were sent again, and the path's MTU."""
    with alone_on_cpu(), socket.create_connection((host, port)) as sock:
        sock.sendall(bytes(MUCH))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        return sent_again(sock), sock.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU


def test_a_flow_goes_on_with_exact_bytes_when_the_path_takes_smaller_packets(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, takes, 1)
        port = asked.heard()
        net.router("link", "set", "br2", "mtu", "1000")
        try:
            again, mtu = net.start(xwing, sends_much, net.addresses["deathstar"], port).heard()
        finally:
            net.router("link", "set", "br2", "mtu", "1500")
        asked.heard()
    ended = the_only(events, "TCP", "close")
    assert mtu == 1000
    assert (ended["sent"], ended["received"]) == (MUCH, 0)
    assert ended["retransmits"] == again > 0
    # What the router says about a packet is no flow, and no error either.
    assert {event["protocol"] for event in events} == {"TCP"}
    assert "ERROR" not in {event["verdict"] for event in events}


def test_segments_that_a_bad_line_loses_are_counted(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    modules.load("sch_netem")
    loses = ["tc", "-n", net.name, "qdisc", "add", "dev", net.cables["deathstar"], "root", "netem", "loss", "20%"]
    added = subprocess.run(loses, stderr=subprocess.PIPE, text=True, check=False)
    if added.returncode:
        pytest.skip(f"this kernel has no netem: {added.stderr.strip()}")
    try:
        with net.flows() as events:
            asked = net.start(deathstar, takes, 1)
            again, _ = net.start(xwing, sends_much, net.addresses["deathstar"], asked.heard()).heard()
            asked.heard()
    finally:
        subprocess.run(["tc", "-n", net.name, "qdisc", "del", "dev", net.cables["deathstar"], "root"], check=True)
    ended = the_only(events, "TCP", "close")
    assert ended["sent"] == MUCH
    assert ended["retransmits"] == again > 0


def counts(pipe: Connection) -> None:
    """Takes connections, reads what is sent at once, and closes."""
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener:
        pipe.send(listener.getsockname()[1])
        for number in range(SHORT):
            accepted, _ = listener.accept()
            with accepted:
                left = 1 + number % 97
                while left:
                    left -= len(accepted.recv(left))
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_many_short_connections_from_few_ports_are_not_mixed_up(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod
) -> None:
    with net.flows("--protocol", "tcp", "--no-drops") as events:
        asked = net.start(deathstar, counts)
        port = asked.heard()
        asking = net.start(xwing, recovers, net.addresses["deathstar"], port)
        asking.heard()
        asked.heard()
    # Connections of earlier tests may end in this time, too: their ends have sent in vain.
    ours = [event for event in events if event["destination"]["port"] == port]
    began, ended = (of_protocol(ours, "TCP", kind) for kind in ("new", "close"))
    assert [event["source"]["port"] for event in began] == [FIRST_PORT + number % PORTS for number in range(SHORT)]
    assert len(ended) == SHORT
    by_beginning = {event["flow_began"]: event for event in ended}
    assert len(by_beginning) == SHORT
    told = [by_beginning[event["flow_began"]] for event in began]
    assert [event["source"]["port"] for event in told] == [event["source"]["port"] for event in began]
    assert [event["sent"] for event in told] == [1 + number % 97 for number in range(SHORT)]
    assert {(event["source"]["pid"], event["destination"]["pid"]) for event in told} == {(asking.pid, asked.pid)}


def recovers(pipe: Connection, host: str, port: int) -> None:
    """Short connections from few ports, which the server resets: the number of one decides how much it sends."""
    for number in range(SHORT):
        if not number % 1000:
            time.sleep(0.1)  # for what reads it, on machines of one CPU
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", FIRST_PORT + number % PORTS))
            sock.connect((host, port))
            sock.sendall(bytes(1 + number % 97))
            try:
                sock.recv(1)
            except ConnectionResetError:
                continue


def passes_on(pipe: Connection, how: str) -> int:
    """Takes one connection, and leaves it to another process. Returns that one's pid."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        accepted, _ = listener.accept()
    ours, theirs = socket.socketpair()
    pid = os.fork() if how == "inherited" else 0
    if how == "passed":
        holder = accepted
        pid = os.fork()
        if not pid:
            holder.close()
            _, ancillary, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
            accepted = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
        else:
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [accepted.fileno()]))])
    if not pid:
        Path("/proc/self/comm").write_text("heir")
        accepted.sendall(bytes(RECEIVED))
        os._exit(0)
    accepted.close()
    os.waitpid(pid, 0)
    return pid


def hears(_: Connection, host: str, port: int) -> int:
    with socket.create_connection((host, port)) as sock:
        count = 0
        while piece := sock.recv(65536):
            count += len(piece)
    return count


@pytest.mark.parametrize("how", ["inherited", "passed"])
def test_a_socket_that_another_process_uses_is_shown_with_both(
    net: PodNetwork, xwing: DemoPod, deathstar: DemoPod, how: str
) -> None:
    with net.flows() as events:
        asked = net.start(deathstar, passes_on, how)
        assert net.start(xwing, hears, net.addresses["deathstar"], asked.heard()).heard() == RECEIVED
        heir = asked.heard()
    ended = the_only(events, "TCP", "close")
    server_end = ended["destination"]
    assert (server_end["pid"], server_end["comm"]) == (asked.pid, "passes_on")
    assert (server_end["user_pid"], server_end["user_comm"]) == (heir, "heir")
    assert ended["source"]["user_pid"] is None


def test_loopback_within_a_pod_is_shown_on_request(net: PodNetwork, xwing: DemoPod) -> None:
    for arguments, expected in (((), 0), (("--loopback",), TIMES)):
        with net.flows(*arguments) as events:
            asked = net.start(xwing, server)
            net.start(xwing, client, "127.0.0.1", asked.heard()).heard()
            asked.heard()
        assert len(of_protocol(events, "TCP", "close")) == expected


def test_packets_are_shown_on_request_with_their_flags(net: PodNetwork, xwing: DemoPod, deathstar: DemoPod) -> None:
    with net.flows("--packets") as events:
        asked = net.start(deathstar, server, 1)
        net.start(xwing, client, net.addresses["deathstar"], asked.heard(), 1).heard()
        asked.heard()
    told = [event for event in events if event["kind"] == "packet"]
    assert [event["summary"].partition(", ")[0].split("B")[0] for event in told[:1]] == ["SYN"]
    assert sum(event["summary"].startswith("SYN") for event in told) == 2  # the second is SYN|ACK
    assert {event["is_reply"] for event in told} == {True, False}
