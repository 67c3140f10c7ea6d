"""Network policies between pods in network namespaces: what they allow passes, and nothing else, each time."""

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.sources.stream import MapWalks
from kubectl_gadget.kube.inventory import Inventory, Node, Port, Service
from kubectl_gadget.kube.inventory import Pod as KnownPod
from kubectl_gadget.policies.network.compile import Compiler
from kubectl_gadget.policies.network.evaluate import Endpoint, Evaluation, Peers, read_policies
from kubectl_gadget.policies.network.run import check, contents
from kubectl_gadget.policies.reactions import PodIsolation
from kubectl_gadget.run.live_tables import Contents, updates
from tests.bpf import network_pods
from tests.bpf.network import address
from tests.bpf.network_pods import (
    SILENCE,
    Pod,
    accept,
    close,
    connect,
    connect_datagrams,
    listen,
    receive,
    send,
    send_raw,
    send_to,
)
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 7
WANTED, POD = 0x81, 1
TCP, UDP = 6, 17
STREAM, DATAGRAMS = socket.SOCK_STREAM, socket.SOCK_DGRAM
EGRESS, INGRESS = 1, 2
REFUSED, DRY_RUN = 1, 2
NAMES = [("shop", "web"), ("shop", "db"), ("shop", "other")]
LABELS = {"web": {"app": "web"}, "db": {"app": "db"}, "other": {"app": "other"}}

DENY_EGRESS = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}"
DENY_INGRESS = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}"
WEB_TO_DB = """{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress],
    egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}, {port: 7000, endPort: 7009},
    {port: 53, protocol: UDP}]}]}"""
DB_FROM_WEB = """{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}],
    ports: [{port: sql}, {port: 53, protocol: UDP}]}]}"""


@pytest.fixture(scope="module")
def pods() -> Iterator[list[Pod]]:
    if reason := network_pods.why_no_network():
        pytest.skip(reason)
    with network_pods.pods(NAMES) as found:
        yield found


@pytest.fixture(scope="module")
def alone() -> Iterator[list[Pod]]:
    """The same without a network, which any kernel has: connect() comes to the hook before it misses a route."""
    with network_pods.pods(NAMES, network=False) as found:
        yield found


class Policies(Tracer):
    """The gadget with its tables as the client makes them, for `pods`."""

    def __init__(self, pods: list[Pod], *specs: str, **parameters: Any) -> None:
        super().__init__("network_policy", verdicts={pod.cgroup_id: WANTED for pod in pods}, **parameters)
        self._pods = pods
        self._compiler = Compiler()
        self._before = Contents()
        self.policies = self._read(specs)
        self.inventory = Inventory(
            [
                KnownPod(
                    pod.namespace,
                    pod.name,
                    labels=LABELS[pod.name],
                    addresses=(pod.v4, pod.v6),
                    ports=(Port("sql", "TCP", 5432),) if pod.name == "db" else (),
                )
                for pod in pods
            ],
            nodes=[Node("here", (network_pods.NODE_V4,))],
        )

    def _read(self, specs: tuple[str, ...]) -> list[Any]:
        texts = [
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, "
            f"metadata: {{name: p{number}, namespace: shop}}, spec: {spec}}}"
            for number, spec in enumerate(specs)
        ]
        policies = read_policies("\n---\n".join(texts), "test", "shop") if texts else []
        for policy in policies:
            check(policy)
        return policies

    def __enter__(self) -> "Policies":
        super().__enter__()
        self.fill()
        return self

    def change(self, *specs: str) -> None:
        """Other policies than before."""
        self.policies = self._read(specs)
        self.fill()

    def fill(self, now: Contents | None = None) -> None:
        """With what the policies say, or with these."""
        now = now or contents(self._compiler.compile(self.policies, self.inventory), "here")
        for update in updates(0, self._before, now):
            for table, entries in update.set.items():
                for key, value in entries.items():
                    self._map(table).put(key, value)
            for table, keys in update.remove.items():
                for key in keys:
                    self._map(table).remove(key)
            if update.containers is not None:
                for pod in self._pods:
                    value = now.pods.get(f"{pod.namespace}/{pod.name}", now.other)
                    self._map("pods").put(struct.pack("<Q", pod.cgroup_id), value)
        self._before = now

    def _map(self, name: str) -> Any:
        found = self.object.map(f"gadget_table_{name}")
        assert found is not None
        return found

    def rows(self) -> list[dict[str, Any]]:
        """After one more second, as the agent counts them."""
        self.object.run("report_more")
        return [record for record in self.records() if record["operation"]]

    def give_away_entry(self, port: int, other: int) -> None:
        """Gives what is known of the exchange with a remote port to that with another one, as the map does when it
        drops an entry that a program has just found."""
        flows = self.object.map("flows")
        assert flows is not None
        for key in list(flows.keys()):
            cgroup, remote, local_port, remote_port, protocol = struct.unpack("<Q16sHHI", key)
            if remote_port == port:
                flows.put(struct.pack("<Q16sHHI", cgroup, remote, local_port, other, protocol), flows.get(key) or b"")

    def refusals(self) -> list[dict[str, Any]]:
        """A row for each refusal that one stands for."""
        return [row for row in self.rows() for _ in range(row["count"])]


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_refused_connect_fails_with_eperm_and_an_allowed_one_connects(pods: list[Pod], version: str) -> None:
    web, db, other = pods
    host = getattr(db, version)
    with Policies(pods, WEB_TO_DB) as policies:
        for port in (5432, 5433):
            db.run(listen, str(port), STREAM, port)
        for _ in range(TIMES):
            assert web.run(connect, host, 5433) == "PermissionError"
            assert web.run(connect, host, 5432) == "connected"
            assert db.run(accept, "5432") == getattr(web, version)
            assert other.run(connect, host, 5433) == "connected"
            assert db.run(accept, "5433") == getattr(other, version)
        refusals = policies.refusals()
        for port in (5432, 5433):
            db.run(close, str(port))
        assert policies.lost == 0
    assert len(refusals) == TIMES
    for record in refusals:
        assert (record["cgroup"], record["pid"], record["operation"]) == (web.cgroup_id, web.pid, "connect")
        assert (record["direction"], record["action"], record["protocol"]) == (EGRESS, REFUSED, TCP)
        assert (address(record["remote"]), record["remote_port"]) == (host, 5433)
        assert (record["policy"], record["rule"], record["peer"]) == ("p0", "p0 egress[0]", "pod shop/db")


def test_an_ipv4_address_in_ipv6_is_judged_as_ipv4(pods: list[Pod]) -> None:
    web, db, _ = pods
    with Policies(pods, WEB_TO_DB) as policies:
        db.run(listen, "a", STREAM, 5432)
        assert web.run(connect, f"::ffff:{db.v4}", 5432) == "connected"
        assert [web.run(connect, f"::ffff:{db.v4}", 5433) for _ in range(TIMES)] == ["PermissionError"] * TIMES
        db.run(close, "a")
        refusals = policies.refusals()
    assert [address(record["remote"]) for record in refusals] == [db.v4] * TIMES


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_pod_that_is_cut_off_loses_the_connections_that_it_has(pods: list[Pod], version: str) -> None:
    web, db, other = pods
    host = getattr(db, version)
    isolation = PodIsolation(lambda _: None)
    with Policies(pods) as policies:
        for pod in (web, db):
            pod.run(listen, "server", STREAM, 5432)
        assert web.run(connect, host, 5432, 5.0, "kept") == "connected"
        db.run(accept, "server", "taken")
        assert web.run(send, "kept", b"before") == "sent"
        assert db.run(receive, "taken")[0] == b"before"
        isolation.isolate("shop", "web", "", "broken")
        policies.fill(isolation.tables.of("here"))
        web.run(send, "kept", b"after")
        db.run(send, "taken", b"answer")
        assert db.run(receive, "taken", 0.5) is None
        assert web.run(receive, "kept", 0.5) is None
        assert web.run(connect, host, 5432) == "PermissionError"
        assert other.run(connect, getattr(web, version), 5432, 0.5) == "timeout"
        assert web.run(connect, "127.0.0.1", 5432) in ("connected", "ConnectionRefusedError")
        assert other.run(connect, host, 5432) == "connected"
        refusals = policies.rows()
        for pod, names in ((web, ("kept", "server")), (db, ("taken", "server"))):
            for name in names:
                pod.run(close, name)
    assert {(row["cgroup"], row["policy"]) for row in refusals} == {(web.cgroup_id, "broken")}
    assert {row["direction"] for row in refusals} == {EGRESS, INGRESS}


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_datagram_is_refused_before_it_is_sent_and_answers_pass(pods: list[Pod], version: str) -> None:
    web, db, _ = pods
    host = getattr(db, version)
    with Policies(pods, WEB_TO_DB) as policies:
        for port in (53, 54):
            db.run(listen, str(port), DATAGRAMS, port)
        for _ in range(TIMES):
            assert web.run(send_to, host, 54, b"refused") == "PermissionError"
            assert web.run(send_to, host, 53, b"question", "asker") == "sent"
            data, (source, source_port) = db.run(receive, "53")
            assert data == b"question"
            assert db.run(send_to, source, source_port, b"answer", "53") == "sent"
            assert web.run(receive, "asker")[0] == b"answer"
            web.run(close, "asker")
        assert db.run(receive, "54", 0.01) is None
        for port in (53, 54):
            db.run(close, str(port))
        refusals = policies.refusals()
    assert [(record["operation"], record["protocol"]) for record in refusals] == [("send", UDP)] * TIMES


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_what_comes_in_is_dropped_unless_it_is_allowed(pods: list[Pod], version: str) -> None:
    web, db, other = pods
    host = getattr(db, version)
    with Policies(pods, DB_FROM_WEB) as policies:
        db.run(listen, "tcp", STREAM, 5432)
        db.run(listen, "udp", DATAGRAMS, 53)
        # Its first packet is sent a second time meanwhile.
        assert other.run(connect, host, 5432, 2 * SILENCE) == "timeout"
        for _ in range(TIMES):
            assert web.run(connect, host, 5432) == "connected"
            assert db.run(accept, "tcp") == getattr(web, version)
            assert other.run(send_to, host, 53, b"refused") == "sent"
            assert web.run(send_to, host, 53, b"allowed") == "sent"
            assert db.run(receive, "udp")[0] == b"allowed"
        refusals = policies.refusals()
        db.run(close, "tcp")
        db.run(close, "udp")
    datagrams = [record for record in refusals if record["protocol"] == UDP]
    assert len(datagrams) == TIMES
    assert len([record for record in refusals if record["protocol"] == TCP]) == 1
    for record in refusals:
        assert (record["cgroup"], record["operation"]) == (db.cgroup_id, "packet")
        assert (record["pid"], record["direction"]) == (db.pid, INGRESS)
        assert (record["policy"], record["rule"], record["peer"]) == ("p0", None, "pod shop/other")
        assert address(record["remote"]) == getattr(other, version)


def test_what_is_known_of_another_exchange_lets_nothing_in(pods: list[Pod]) -> None:
    web, db, _ = pods
    with Policies(pods, "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}") as policies:
        for port in (53, 54):
            db.run(listen, str(port), DATAGRAMS, port)
        assert web.run(send_to, db.v4, 53, b"question", "asker") == "sent"
        _, (source, source_port) = db.run(receive, "53")
        for _ in range(TIMES):
            policies.give_away_entry(53, 54)
            assert db.run(send_to, source, source_port, b"unasked", "54") == "sent"
            assert db.run(send_to, source, source_port, b"answer", "53") == "sent"
            assert web.run(receive, "asker")[0] == b"answer"
        refusals = policies.refusals()
        for pod, name in ((web, "asker"), (db, "53"), (db, "54")):
            pod.run(close, name)
    assert [(row["direction"], row["remote_port"]) for row in refusals] == [(INGRESS, 54)] * TIMES


def test_an_answer_of_a_pod_that_may_send_nothing_passes(pods: list[Pod]) -> None:
    web, _, other = pods
    with Policies(pods, DENY_EGRESS) as policies:
        web.run(listen, "server", DATAGRAMS, 53)
        for _ in range(TIMES):
            assert other.run(send_to, web.v4, 53, b"question", "asker") == "sent"
            _, (source, port) = web.run(receive, "server")
            assert web.run(send_to, source, port, b"answer", "server") == "sent"
            assert other.run(receive, "asker")[0] == b"answer"
            assert web.run(send_to, source, port + 1, b"unasked", "server") == "PermissionError"
            other.run(close, "asker")
        web.run(close, "server")
        assert len(policies.refusals()) == TIMES


def test_connections_and_connected_datagrams_that_were_there_before_live_on(pods: list[Pod]) -> None:
    web, db, _ = pods
    db.run(listen, "tcp", STREAM, 7777)
    db.run(listen, "udp", DATAGRAMS, 7778)
    assert web.run(connect, db.v4, 7777, network_pods.PATIENCE, "old") == "connected"
    db.run(accept, "tcp", "old")
    assert web.run(connect_datagrams, "udp", db.v4, 7778) == "connected"
    with Policies(pods, DENY_EGRESS, DENY_INGRESS) as policies:
        for _ in range(TIMES):
            assert web.run(send, "old", b"ping") == "sent"
            assert db.run(receive, "old")[0] == b"ping"
            assert db.run(send, "old", b"pong") == "sent"
            assert web.run(receive, "old")[0] == b"pong"
            assert web.run(send, "udp", b"ping") == "sent"
        # What goes out is known; where it comes in, nobody has a socket with that other end.
        assert {record["direction"] for record in policies.refusals()} == {INGRESS}
        assert web.run(connect, db.v4, 7777) == "PermissionError"
    for pod, names in ((web, ("old", "udp")), (db, ("tcp", "udp", "old"))):
        for name in names:
            pod.run(close, name)


def test_loopback_the_pods_own_address_and_the_node_are_always_allowed(pods: list[Pod]) -> None:
    web = pods[0]
    with Policies(pods, "{podSelector: {}, policyTypes: [Egress, Ingress]}") as policies:
        web.run(listen, "a", STREAM, 8080)
        for host in ("127.0.0.1", "::1", web.v4, web.v6, "::ffff:127.0.0.1"):
            assert web.run(connect, host, 8080) == "connected"
        web.run(close, "a")
        assert web.run(connect, network_pods.NODE_V4, 1) == "ConnectionRefusedError"
        assert policies.refusals() == []


def test_a_port_that_the_node_relays_does_not_evade_the_policy(pods: list[Pod]) -> None:
    web = pods[0]
    with Policies(pods) as policies:
        ports = Port("", "TCP", 80, 5432, 30080), Port("", "UDP", 53, 0, 30053)
        policies.inventory.services.append(Service("shop", "db", ("10.96.0.9",), ports, {"app": "db"}))
        policies.change(DENY_EGRESS)
        for host in (network_pods.NODE_V4, f"::ffff:{network_pods.NODE_V4}"):
            assert web.run(connect, host, 30080) == "PermissionError"
            assert web.run(send_to, host, 30053, b"x") == "PermissionError"
        assert {(address(row["remote"]), row["peer"]) for row in policies.refusals()} == {
            (network_pods.NODE_V4, "service shop/db")
        }
        policies.change(WEB_TO_DB)
        assert web.run(connect, network_pods.NODE_V4, 30080) == "ConnectionRefusedError"
        assert web.run(send_to, network_pods.NODE_V4, 30053, b"x") == "sent"
        assert policies.refusals() == []


def test_a_raw_socket_does_not_evade_the_policy(pods: list[Pod]) -> None:
    web, db, _ = pods
    with Policies(pods, DENY_EGRESS) as policies:
        db.run(listen, "udp", DATAGRAMS, 53)
        for source, fragment in ((web.v4, 0), ("192.0.2.1", 0), (db.v4, 0), (web.v4, 5)):
            for _ in range(TIMES):
                with pytest.raises(AssertionError, match="PermissionError"):
                    web.run(send_raw, db.v4, [(source, 9, 53, b"raw")], fragment)
        assert db.run(receive, "udp", 0.01) is None
        db.run(close, "udp")
        assert [record["operation"] for record in policies.refusals()] == ["packet"] * TIMES * 4


def test_a_dry_run_refuses_nothing_and_reports_it(pods: list[Pod]) -> None:
    web, db, _ = pods
    with Policies(pods, DENY_EGRESS, dry_run=True) as policies:
        db.run(listen, "udp", DATAGRAMS, 53)
        db.run(listen, "tcp", STREAM, 80)
        for _ in range(TIMES):
            assert web.run(send_to, db.v4, 53, b"x") == "sent"
            assert db.run(receive, "udp")[0] == b"x"
            assert web.run(connect, db.v4, 80) == "connected"
            assert db.run(accept, "tcp") == web.v4
        for name in ("udp", "tcp"):
            db.run(close, name)
        refusals = policies.refusals()
    assert {record["action"] for record in refusals} == {DRY_RUN}
    assert sorted(record["operation"] for record in refusals) == ["connect"] * TIMES + ["send"] * TIMES


def test_policies_change_while_it_runs(pods: list[Pod]) -> None:
    web, db, _ = pods
    db.run(listen, "a", STREAM, 5432)
    with Policies(pods) as policies:
        assert web.run(connect, db.v4, 5432) == "connected"
        policies.change(DENY_EGRESS)
        assert web.run(connect, db.v4, 5432) == "PermissionError"
        policies.change(DENY_EGRESS, WEB_TO_DB)
        assert web.run(connect, db.v4, 5432) == "connected"
        policies.change()
        assert web.run(connect, db.v4, 5433) == "ConnectionRefusedError"
    db.run(close, "a")


def test_nothing_stays_when_it_ends(alone: list[Pod]) -> None:
    web, db, _ = alone
    with Policies(alone, DENY_EGRESS):
        assert web.run(connect, db.v4, 9) == "PermissionError"
    assert web.run(connect, db.v4, 9) == "OSError"


def test_each_refused_call_is_reported_with_its_process(alone: list[Pod]) -> None:
    web, db, _ = alone
    with Policies(alone, WEB_TO_DB) as policies:
        for host in (db.v4, db.v6):
            for _ in range(TIMES):
                assert web.run(connect, host, 5433) == "PermissionError"
                assert web.run(send_to, host, 54, b"x") == "PermissionError"
                assert web.run(connect, host, 5432) == "OSError"
        refusals = policies.refusals()
    assert sorted(record["operation"] for record in refusals) == ["connect"] * TIMES * 2 + ["send"] * TIMES * 2
    assert {(record["pid"], record["cgroup"], record["peer"]) for record in refusals} == {
        (web.pid, web.cgroup_id, "pod shop/db")
    }


def move(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0")


def test_a_cgroup_far_below_the_pods_does_not_evade_the_policy(alone: list[Pod]) -> None:
    web, db, _ = alone
    nested = web.cgroup.joinpath(*["deep"] * 40)
    nested.mkdir(parents=True)
    try:
        web.run(move, nested)
        with Policies(alone, WEB_TO_DB) as policies:
            assert web.run(connect, db.v4, 5433) == "PermissionError"
            assert web.run(connect, db.v4, 5432) == "OSError"
            (refusal,) = policies.refusals()
        assert (refusal["pid"], refusal["cgroup"]) == (web.pid, web.cgroup_id)
    finally:
        web.run(move, web.cgroup)
        while nested != web.cgroup:
            nested.rmdir()
            nested = nested.parent


def test_the_first_refusal_is_reported_at_once_and_the_others_by_their_number(alone: list[Pod]) -> None:
    web, db, _ = alone
    with Policies(alone, WEB_TO_DB) as policies:
        for _ in range(TIMES):
            assert web.run(connect, db.v4, 5433) == "PermissionError"
            assert web.run(connect, db.v4, 5434) == "PermissionError"
        at_once = [(row["remote_port"], row["count"]) for row in policies.records() if row["operation"]]
        assert at_once == [(5433, 1), (5434, 1)]
        assert sorted((row["remote_port"], row["count"]) for row in policies.rows()) == [
            (5433, TIMES - 1),
            (5434, TIMES - 1),
        ]
        # Two quiet seconds later it is the first one again.
        assert (policies.rows(), policies.rows()) == ([], [])
        assert web.run(connect, db.v4, 5433) == "PermissionError"
        (row,) = [row for row in policies.records() if row["operation"]]
    assert (row["remote_port"], row["count"], row["policy"], row["rule"]) == (5433, 1, "p0", "p0 egress[0]")


def call_without_end(host: str, ports: int, times: int) -> None:
    for number in range(times):
        assert connect(host, 6000 + number % ports) == "PermissionError"


def test_every_refusal_is_counted_while_rows_are_made(alone: list[Pod]) -> None:
    web, db, other = alone
    ports, times = 13, 390
    with Policies(alone, DENY_EGRESS, "{podSelector: {}, policyTypes: [Egress]}") as policies:
        for pod in (web, other):
            pod.begin(call_without_end, db.v4, ports, times)
        rows = []
        for _ in range(20):
            rows += policies.rows()
        for pod in (web, other):
            pod.end()
        rows += policies.rows()
        assert policies.lost == 0
    for pod in (web, other):
        own = [row for row in rows if row["pid"] == pod.pid]
        counts = [sum(row["count"] for row in own if row["remote_port"] == 6000 + port) for port in range(ports)]
        assert counts == [times // ports] * ports
        assert {row["cgroup"] for row in own} == {pod.cgroup_id}


def test_the_end_reports_what_was_only_counted(alone: list[Pod]) -> None:
    web, db, _ = alone
    with Policies(alone, WEB_TO_DB) as policies:
        walks = MapWalks(policies.object)
        for _ in range(TIMES):
            assert web.run(connect, db.v4, 5433) == "PermissionError"
        walks.detach()
        assert web.run(connect, db.v4, 5433) == "OSError"
        assert [row["count"] for row in policies.records() if row["operation"]] == [1, TIMES - 1]


def test_an_answer_to_a_socket_that_asked_without_connecting_before_the_start_passes(pods: list[Pod]) -> None:
    web, db, _ = pods
    web.run(listen, "server", DATAGRAMS, 5353)
    assert web.run(send_to, db.v4, 53, b"question", "asker") == "sent"
    db.run(listen, "peer", DATAGRAMS, 53)
    assert web.run(send_to, db.v4, 53, b"question", "asker") == "sent"
    _, (source, port) = db.run(receive, "peer")
    with Policies(pods, "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}") as policies:
        for _ in range(TIMES):
            assert db.run(send_to, source, port, b"answer", "peer") == "sent"
            assert web.run(receive, "asker")[0] == b"answer"
            # What was bound to its port waits for others to begin.
            assert db.run(send_to, source, 5353, b"refused", "peer") == "sent"
        assert web.run(receive, "server", 0.01) is None
        refusals = policies.refusals()
    for pod, names in ((web, ("server", "asker")), (db, ("peer",))):
        for name in names:
            pod.run(close, name)
    assert [(row["direction"], row["local_port"]) for row in refusals] == [(INGRESS, 5353)] * TIMES


RANDOM_BLOCKS = [
    "0.0.0.0/0",
    "10.9.0.0/24",
    "10.9.0.8/29",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "198.51.100.7/32",
    "fd09::/64",
]
RANDOM_ADDRESSES = ["10.9.0.11", "10.9.0.12", "10.9.0.13", "10.9.0.99", "192.0.2.5", "192.0.2.70", "198.51.100.7"]
RANDOM_PORTS = [53, 80, 1024, 5432, 65535]


def random_spec(chance: random.Random, word: str, peers: str) -> dict[str, Any]:
    def block() -> dict[str, Any]:
        return {
            "ipBlock": {
                "cidr": chance.choice(RANDOM_BLOCKS),
                "except": chance.sample(RANDOM_BLOCKS, chance.randint(0, 2)),
            }
        }

    def peer() -> dict[str, Any]:
        return (
            block() if chance.random() < 0.6 else {"podSelector": {"matchLabels": chance.choice(list(LABELS.values()))}}
        )

    def ports() -> dict[str, Any]:
        first, last = sorted(chance.choices(RANDOM_PORTS, k=2))
        protocol = chance.choice(["TCP", "UDP"])
        return (
            {"port": first, "endPort": last, "protocol": protocol} if chance.random() < 0.8 else {"protocol": protocol}
        )

    def rule() -> dict[str, Any]:
        return {
            **({peers: [peer() for _ in range(chance.randint(1, 2))]} if chance.random() < 0.9 else {}),
            **({"ports": [ports() for _ in range(chance.randint(1, 2))]} if chance.random() < 0.8 else {}),
        }

    return {word: [rule() for _ in range(chance.randint(0, 2))], "policyTypes": [word.capitalize()], "podSelector": {}}


def expected(policies: Policies, subject: Pod, ingress: bool, remote: str, protocol: str, port: int) -> bool:
    evaluation = Evaluation(policies.inventory, policies.policies)
    pod = policies.inventory.pod(subject.namespace, subject.name)
    assert pod is not None
    end = Endpoint(remote, Peers(policies.inventory).pod_at(remote), port)
    isolating = [policy for policy in policies.policies if evaluation.isolates(policy, pod, ingress)]
    return not isolating or any(evaluation.allows(policy, end, pod, protocol, ingress) for policy in isolating)


def try_calls(calls: list[tuple[str, str, int]]) -> list[bool]:
    """For each address, protocol and port whether connect() gets past the hook. Without waiting: what comes then is the
    network's."""
    passed = []
    for host, protocol, port in calls:
        with socket.socket(socket.AF_INET, STREAM if protocol == "TCP" else DATAGRAMS) as sock:
            sock.setblocking(False)
            try:
                sock.connect((host, port))
            except PermissionError:
                passed.append(False)
            except OSError:
                passed.append(True)
            else:
                passed.append(True)
    return passed


def received(name: str, last: bytes) -> set[bytes]:
    """All datagrams up to the one that is the last."""
    found = set()
    while True:
        answer = receive(name)
        assert answer is not None
        if answer[0] == last:
            return found
        found.add(answer[0])


def text(turn: int, source: str, port: int) -> bytes:
    return f"{turn} {source} {port}".encode()


def listen_many(ports: list[int]) -> None:
    for port in ports:
        listen(f"random {port}", DATAGRAMS, port)


@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_decides_as_the_rules_do_for_random_calls(alone: list[Pod], seed: int) -> None:
    chance = random.Random(seed)
    web = alone[0]
    calls = [
        (host, protocol, port)
        for host in RANDOM_ADDRESSES
        if host != web.v4
        for protocol in ("TCP", "UDP")
        for port in (*RANDOM_PORTS, 79)
    ]
    with Policies(alone) as policies:
        for _ in range(2):
            policies.policies = policies_of(random_spec(chance, "egress", "to"), random_spec(chance, "egress", "to"))
            policies.fill()
            wanted = [expected(policies, web, False, *call) for call in calls]
            assert web.run(try_calls, calls) == wanted


def policies_of(*specs: dict[str, Any]) -> list[Any]:
    return [
        {"metadata": {"name": f"p{number}", "namespace": "shop"}, "spec": spec} for number, spec in enumerate(specs)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_decides_as_the_rules_do_for_random_packets(pods: list[Pod], seed: int) -> None:
    chance = random.Random(seed)
    web, db, _ = pods
    sources = [host for host in RANDOM_ADDRESSES if host != db.v4]
    db.run(listen_many, [*RANDOM_PORTS])
    with Policies(pods) as policies:
        for turn in range(2):
            policies.policies = policies_of(
                random_spec(chance, "ingress", "from"), random_spec(chance, "ingress", "from")
            )
            policies.fill()
            tried = [(source, port) for source in sources for port in RANDOM_PORTS]
            wanted = {text(turn, *one) for one in tried if expected(policies, db, True, one[0], "UDP", one[1])}
            # Each from a port of its own, or it would go on with what was allowed the turn before.
            web.run(send_raw, db.v4, [(*one[:1], 40000 + turn, one[1], text(turn, *one)) for one in tried])
            policies.change()
            web.run(send_raw, db.v4, [(web.v4, 50000, port, b"last") for port in RANDOM_PORTS])
            assert set().union(*(db.run(received, f"random {port}", b"last") for port in RANDOM_PORTS)) == wanted
    for port in RANDOM_PORTS:
        db.run(close, f"random {port}")
