"""Compiled tables decide as the rules of the API do, for random policies, pods and attempts."""

import struct
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port, Service
from kubectl_gadget.policies.network.compile import Compiler
from kubectl_gadget.policies.network.evaluate import Endpoint, Evaluation, Peers
from kubectl_gadget.policies.network.kernel_tables import (
    EGRESS,
    INGRESS,
    PEER_NODE,
    PEER_SERVICE,
    PolicyTables,
    block,
    port_prefixes,
    relay_key,
)
from tests.examples import examples
from tests.policies.network import random_policies as some

Attempt = tuple[str, str, int]


def allows(tables: PolicyTables, subject: int, direction: int, address: str, protocol: str, port: int) -> bool:
    """The kernel's decision with these tables."""
    value = tables.subjects.get(struct.pack("<I", subject))
    if value and not value[0] & direction:
        return True
    found = tables.peer_at(address)
    relay = tables.ports.get(relay_key(block(address).is_v4, protocol, port))
    if found[1] == PEER_NODE and direction == EGRESS and relay:
        found = struct.unpack("<I", relay)[0], PEER_SERVICE
    return tables.allows_peer(subject, direction, found, protocol, port)


def expected(policies: list[Any], inventory: Inventory, pod: Pod, attempt: Attempt, ingress: bool) -> bool:
    """By the rules alone, one after the other."""
    address, protocol, port = attempt
    evaluation = Evaluation(inventory, policies)
    isolating = [policy for policy in policies if evaluation.isolates(policy, pod, ingress)]
    end = Endpoint(address, Peers(inventory).pod_at(address), port)
    return not isolating or any(evaluation.allows(policy, end, pod, protocol, ingress) for policy in isolating)


def by_tables(tables: PolicyTables, pod: Pod, attempt: Attempt, direction: int) -> bool:
    entry = tables.pods.get(f"{pod.namespace}/{pod.name}")
    subject = int.from_bytes(entry[:4], "little") if entry else 0
    return not subject or allows(tables, subject, direction, *attempt)


@pytest.mark.slow
@settings(max_examples=examples(400))
@given(some.policies(), some.inventories(), st.lists(some.ATTEMPTS, min_size=1, max_size=8))
def test_tables_decide_as_the_rules_do(policies: list[Any], inventory: Inventory, attempts: list[Attempt]) -> None:
    tables = Compiler().compile(policies, inventory).tables
    for pod in inventory.pods:
        for attempt in attempts:
            for direction, ingress in ((EGRESS, False), (INGRESS, True)):
                wanted = expected(policies, inventory, pod, attempt, ingress)
                assert by_tables(tables, pod, attempt, direction) is wanted, (pod, attempt, direction)


@given(some.policies(), some.inventories(), some.policies(), some.inventories())
def test_numbers_keep_their_meaning_when_the_cluster_changes(
    policies: list[Any], inventory: Inventory, later: list[Any], after: Inventory
) -> None:
    compiler = Compiler()
    first = compiler.compile(policies, inventory).tables
    compiler.compile(later, after)
    assert vars(compiler.compile(policies, inventory).tables) == vars(first)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_prefixes_hold_exactly_the_ports_of_a_range(one: int, other: int) -> None:
    first, last = sorted((one, other))
    at = first
    for port, bits in port_prefixes(first, last):
        assert port == at
        assert port % (1 << (16 - bits)) == 0
        at += 1 << (16 - bits)
    assert at == last + 1


def test_a_node_may_always_and_only_on_itself() -> None:
    pods = [Pod("shop", "web", addresses=("10.0.0.2",)), Pod("shop", "other", addresses=("10.0.0.1",))]
    inventory = Inventory(pods, [], [some.NODE], {})
    policies = [{"metadata": {"name": "p", "namespace": "shop"}, "spec": {"policyTypes": ["Ingress", "Egress"]}}]
    compiled = Compiler().compile(policies, inventory)
    pod = pods[0]
    for address in ("172.30.0.11", "10.0.0.1"):
        attempt = (address, "TCP", 80)
        assert compiled.for_node("n1").peer_at("172.30.0.11")[1] == PEER_NODE
        assert by_tables(compiled.for_node("n1"), pod, attempt, INGRESS) is (address == "172.30.0.11")
        assert not by_tables(compiled.for_node("n2"), pod, attempt, INGRESS)


def test_a_pod_that_claims_the_uid_of_another_does_not_change_its_policies() -> None:
    policies = [{"metadata": {"name": "p", "namespace": "shop"}, "spec": {"policyTypes": ["Ingress", "Egress"]}}]
    web, other = Pod("shop", "web", "uid-1"), Pod("other", "plain", "uid-2")
    static = Pod("shop", "static", "uid-3", static_uid="hash")
    compiler = Compiler()
    alone = compiler.compile(policies, Inventory([web, other, static])).tables.pods
    assert alone["hash"] == alone["shop/static"] == alone["uid-1"] != b""
    decoys = [Pod("other", f"decoy-{uid}", f"decoy-{uid}", static_uid=uid) for uid in ("uid-1", "hash")]
    with_decoys = compiler.compile(policies, Inventory([web, other, static, *decoys])).tables.pods
    assert with_decoys["uid-1"] == alone["uid-1"]
    assert "hash" not in with_decoys


def test_what_a_node_reports_is_its_own_unless_it_is_a_pods_or_a_services() -> None:
    pods = [Pod("shop", "web", addresses=("10.0.0.2",))]
    service = Service("shop", "db", ("10.96.0.9",), (), {})
    compiled = Compiler().compile([], Inventory(pods, [service], [some.NODE], {}))
    told = ("10.244.1.1", "fd00:1::1", "10.0.0.2", "10.96.0.9", "::ffff:10.96.0.9")
    node = {address for address in told if compiled.for_node("n2", told).peer_at(address)[1] == PEER_NODE}
    assert node == {"10.244.1.1", "fd00:1::1"}
    assert compiled.for_node("n2").peer_at("10.244.1.1")[1] != PEER_NODE


def test_addresses_of_pods_and_of_all_nodes_are_named() -> None:
    inventory = Inventory([Pod("shop", "web", addresses=("10.0.0.2",))], [], [some.NODE], {})
    policy = {
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "172.30.0.0/24"}}]}]},
    }
    compiled = Compiler().compile([policy], inventory)
    for node in ("n1", "n2"):
        tables = compiled.for_node(node)
        for address, name in (("10.0.0.2", "pod shop/web"), ("172.30.0.11", "node n1")):
            found = block(address)
            assert tables.peers[struct.pack("<I", found.bits) + found.packed][8:].rstrip(b"\0").decode() == name
            assert by_tables(tables, inventory.pods[0], (address, "TCP", 80), EGRESS) is address.startswith("172.")


def test_a_service_is_allowed_what_all_of_its_backends_are() -> None:
    backends = [
        Pod(
            "shop",
            f"db{n}",
            labels={"app": "db", "n": str(n)},
            addresses=(f"10.0.1.{n}",),
            ports=(Port("sql", "TCP", 5432),),
        )
        for n in (1, 2)
    ]
    service = Service("shop", "db", ("10.96.0.9",), (Port("", "TCP", 80, "sql"),), {"app": "db"})
    web = Pod("shop", "web", labels={"app": "web"}, addresses=("10.0.0.1",))
    inventory = Inventory([web, *backends], [service], [], {})

    def allowed(labels: dict[str, str], port: int, called: int = 80) -> bool:
        rule = {"to": [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": port}]}
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [rule]}
        tables = Compiler().compile([{"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}], inventory).tables
        assert tables.peer_at("10.96.0.9")[1] == PEER_SERVICE
        return by_tables(tables, web, ("10.96.0.9", "TCP", called), EGRESS)

    assert allowed({"app": "db"}, 5432)
    assert not allowed({"app": "db"}, 80)
    assert not allowed({"n": "1"}, 5432)
    assert not allowed({"app": "db"}, 5432, called=5432)


def test_a_service_needs_the_backends_of_its_own_version_of_ip_alone() -> None:
    web = Pod("shop", "web", addresses=("10.0.0.1", "fd00::1"))
    db = Pod("shop", "db", labels={"app": "db"}, addresses=("10.0.1.1", "fd00:1::1"))
    service = Service("shop", "db", ("10.96.0.9", "fd00:96::9"), (Port("", "TCP", 80),), {"app": "db"})
    spec = {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}]}
    policies = [{"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}]
    tables = Compiler().compile(policies, Inventory([web, db], [service])).tables
    assert by_tables(tables, web, ("10.96.0.9", "TCP", 80), EGRESS)
    assert not by_tables(tables, web, ("fd00:96::9", "TCP", 80), EGRESS)


@pytest.mark.parametrize("node", ["172.30.0.11", "fd00:30::11"])
def test_a_port_that_a_node_relays_is_decided_by_its_target(node: str) -> None:
    pod = partial(Pod, "shop", addresses=("10.0.1.1", "fd00:1::1"), node="n1")
    web = pod("web", labels={"app": "web"}, addresses=("10.0.0.1",))
    db = pod("db", labels={"app": "db"}, ports=(Port("", "TCP", 53, on_node=8053),))
    ports = Port("", "TCP", 80, 5432, 30080), Port("", "UDP", 53, on_node=30053)
    service = Service("shop", "db", ("10.96.0.9", "fd00:96::9", "172.30.0.11", "fd00:30::11"), ports, {"app": "db"})
    nodes = [Node(name, addresses) for name, addresses in (("n1", ("172.30.0.11", "fd00:30::11")), ("n2", (node,)))]
    inventory = Inventory([web, db], [service], nodes)

    def allowed(ports: list[Any], protocol: str, called: int, at: str = "n1") -> bool:
        rule = {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": ports}
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [rule]}
        compiled = Compiler().compile([{"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}], inventory)
        return by_tables(compiled.for_node(at), web, (node, protocol, called), EGRESS)

    sql, dns = [{"port": 5432}], [{"port": 53, "protocol": "UDP"}]
    for called in (80, 30080):
        assert allowed(sql, "TCP", called)
        assert not allowed(dns, "TCP", called)
    assert allowed(dns, "UDP", 30053)
    assert not allowed(sql, "UDP", 30053)
    assert allowed([{"port": 53}], "TCP", 8053)
    assert not allowed(sql, "TCP", 8053)
    # What leads nowhere else is the node itself.
    assert allowed(sql, "TCP", 22)
    assert allowed(sql, "UDP", 30080)
    assert allowed(sql, "TCP", 8053, at="n2")


def test_an_unknown_pod_is_refused_everything_where_there_are_policies() -> None:
    policies = [{"metadata": {"name": "p", "namespace": "shop"}, "spec": {}}]
    tables = Compiler().compile(policies, Inventory()).tables
    subject = int.from_bytes(tables.namespaces["shop"][:4], "little")
    for direction in (EGRESS, INGRESS):
        assert not allows(tables, subject, direction, "192.0.2.1", "TCP", 80)
    assert set(tables.namespaces) == {"shop"}


def test_an_ipv4_address_in_ipv6_is_the_ipv4_address() -> None:
    assert block("::ffff:10.0.0.1") == block("10.0.0.1")
    assert not block("::/0").holds(block("10.0.0.1"))
