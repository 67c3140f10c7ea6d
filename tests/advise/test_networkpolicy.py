"""Policies from flows: that they allow exactly what was seen, and how they name each peer."""

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise import networkpolicy
from kubectl_gadget.advise.documents import as_json, as_yaml
from kubectl_gadget.advise.networkpolicy import network_policies
from kubectl_gadget.advise.uses import SeenUses, Use
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from kubectl_gadget.kube.inventory import Inventory, Node, Pod
from kubectl_gadget.policies.network.evaluate import read_policies
from tests.advise.flows import BARE, DB, ON_HOST, WEB, WEB_2, flow, recording
from tests.advise.plain_policy import End, allowed
from tests.behavior.made import behavior, fact

PODS = [
    Pod(namespace, name, f"{namespace}/{name}", {"app": name}, addresses)
    for namespace, name, addresses in (
        ("one", "a", ("10.0.0.1", "fd00::1")),
        ("one", "b", ("10.0.0.2",)),
        ("two", "a", ("10.0.0.3", "fd00::3")),
        ("two", "c", ("fd00::4",)),
    )
]
OUTSIDE = ["198.51.100.7", "2001:db8::7", "::ffff:198.51.100.8", "224.0.0.251"]
PROTOCOLS = ["TCP", "UDP", "SCTP"]
PORTS = [53, 80, 65535]
ENDS = [End(address, pod.namespace, tuple(pod.labels.items())) for pod in PODS for address in pod.addresses] + [
    End(address.removeprefix("::ffff:")) for address in OUTSIDE
]
FACTS = st.builds(
    flow,
    st.sampled_from(PODS),
    st.sampled_from(["ingress", "egress"]),
    st.sampled_from([address for pod in PODS for address in pod.addresses] + OUTSIDE),
    st.sampled_from(PORTS),
    st.sampled_from(PROTOCOLS),
)


def policies(uses: list[Use], pods: list[Pod] = PODS) -> list[dict[str, Any]]:
    """As they come out of the YAML again."""
    made = SeenUses(networkpolicy.KIND, inventory=Inventory(list(pods)))
    made.add(uses)
    return list(yaml.safe_load_all(as_yaml(networkpolicy.advise(made))))


@given(st.lists(FACTS, max_size=25))
def test_policies_allow_all_that_was_seen_and_nothing_else(uses: list[Use]) -> None:
    found = policies(uses)
    by_address = {address: pod for pod in PODS for address in pod.addresses}
    seen = set()
    for use in uses:
        other = by_address.get(use["remote"])
        # A pod is known by its labels, and so has all of its addresses.
        name = (other.namespace, other.name) if other else use["remote"].removeprefix("::ffff:")
        seen.add((use["namespace"], use["pod"], use["direction"], name, use["protocol"], use["port"]))
    own = {use["namespace"] + "/" + use["pod"] for use in uses}
    for pod in PODS:
        if f"{pod.namespace}/{pod.name}" not in own:
            continue
        subject = End(pod.addresses[0], pod.namespace, tuple(pod.labels.items()))
        for end in ENDS:
            if end.namespace and by_address[end.address] is pod:
                continue  # a pod may always talk to itself
            name = (end.namespace, by_address[end.address].name) if end.namespace else end.address
            for direction in ("ingress", "egress"):
                for protocol in PROTOCOLS:
                    for port in PORTS:
                        wanted = (pod.namespace, pod.name, direction, name, protocol, port) in seen
                        answer = allowed(found, subject, direction == "ingress", end, protocol, port)
                        assert answer is wanted, (pod, end, direction, protocol, port)


def only(*uses: Use, format: str = "kubernetes") -> tuple[dict[str, Any], str]:
    """The one policy that these flows make, and its comments."""
    (document,) = networkpolicy.advise(recording(*uses), format)
    return document.body, "\n".join(document.comments)


def test_replicas_of_a_deployment_share_a_policy_by_the_labels_of_both() -> None:
    policy, _ = only(flow(WEB, "ingress", "10.0.0.3", 80), flow(WEB_2, "egress", "10.0.0.3", 5432))
    assert policy["apiVersion"] == "networking.k8s.io/v1"
    assert policy["metadata"] == {"name": "web", "namespace": "shop"}
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {"app": "web"}}
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}},
        "podSelector": {"matchLabels": {"app": "db"}},
    }
    assert spec["ingress"] == [{"from": [peer], "ports": [{"protocol": "TCP", "port": 80}]}]
    assert spec["egress"] == [{"to": [peer], "ports": [{"protocol": "TCP", "port": 5432}]}]


def test_a_pod_of_the_same_namespace_needs_no_namespace_selector() -> None:
    policy, _ = only(flow(WEB, "egress", "10.0.0.2", 80))
    assert policy["spec"]["egress"][0]["to"] == [{"podSelector": {"matchLabels": {"app": "web"}}}]


def test_a_direction_in_which_nothing_went_is_closed() -> None:
    policy, comments = only(flow(WEB, "egress", "10.0.0.3", 5432))
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"] == []
    assert "no ingress was seen, so none is allowed" in comments


def test_a_service_becomes_its_backends_with_the_port_that_they_name() -> None:
    policy, comments = only(flow(WEB, "egress", "10.96.0.3", 80))
    (rule,) = policy["spec"]["egress"]
    assert rule["to"][0]["podSelector"] == {"matchLabels": {"app": "db"}}
    assert rule["ports"] == [{"protocol": "TCP", "port": 5432}]
    assert "to the service data/db: 5432/TCP" in comments


def test_dns_is_allowed_where_it_was_asked_and_tcp_is_hinted_at() -> None:
    policy, comments = only(flow(WEB, "egress", "10.96.0.10", 53, "UDP"))
    (rule,) = policy["spec"]["egress"]
    assert rule["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert rule["ports"] == [{"protocol": "UDP", "port": 53}]
    assert "long answers use 53/TCP" in comments


def test_a_service_without_a_selector_becomes_its_endpoints() -> None:
    policy, comments = only(flow(WEB, "egress", "10.96.0.1", 443))
    (rule,) = policy["spec"]["egress"]
    assert rule == {"to": [{"ipBlock": {"cidr": "192.168.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 6443}]}
    assert "the service default/kubernetes" in comments


def test_pods_on_the_hosts_network_and_nodes_are_addresses_with_a_comment() -> None:
    policy, comments = only(flow(WEB, "ingress", "192.168.0.1", 8080))
    assert policy["spec"]["ingress"][0]["from"] == [{"ipBlock": {"cidr": "192.168.0.1/32"}}]
    assert "the node n1: 8080/TCP; kubelet's probes" in comments


def test_the_first_address_of_a_nodes_pods_is_the_node_and_others_are_pods_that_are_gone() -> None:
    made = recording(flow(WEB, "ingress", "10.1.0.1", 80), flow(WEB, "ingress", "10.1.0.9", 80))
    made.inventory.nodes.append(Node("n2", ("192.168.0.2",), ("10.1.0.0/24", "fd00:1::/64")))
    comments = "\n".join(networkpolicy.advise(made)[0].comments)
    assert "from 10.1.0.1, the node n2: 80/TCP; kubelet's probes" in comments
    assert "from 10.1.0.9, a pod of n2 that is unknown, or gone" in comments


def test_pods_on_the_hosts_network_and_without_labels_get_no_policy_and_are_named() -> None:
    made = recording(flow(ON_HOST, "egress", "10.0.0.3", 80), flow(BARE, "egress", "10.0.0.3", 80))
    assert networkpolicy.advise(made) == []
    told = "\n".join(networkpolicy.warnings(made))
    assert "kube-system/proxy uses its node's network" in told
    assert "shop/bare has no labels" in told


def test_loopback_and_the_pods_own_address_make_no_rules() -> None:
    policy, _ = only(
        flow(WEB, "egress", "127.0.0.1", 80), flow(WEB, "egress", "::1", 80), flow(WEB, "ingress", "10.0.0.1", 80)
    )
    assert (policy["spec"]["ingress"], policy["spec"]["egress"]) == ([], [])


def test_what_was_never_answered_is_allowed_and_reported() -> None:
    _, comments = only(flow(WEB, "egress", "203.0.113.9", 25, received_packets=0))
    assert "203.0.113.9" in comments
    assert "never answered" in comments


def test_an_address_belongs_to_the_pod_that_still_runs() -> None:
    for ended_last in (True, False):
        made = recording(flow(WEB, "egress", "10.0.0.77", 80))
        ended = Pod("shop", "job", "u7", {"app": "job"}, ("10.0.0.77",), ended=True)
        running = Pod("shop", "api", "u8", {"app": "api"}, ("10.0.0.77",))
        made.inventory.pods += [running, ended] if ended_last else [ended, running]
        (document,) = networkpolicy.advise(made)
        assert document.body["spec"]["egress"][0]["to"] == [{"podSelector": {"matchLabels": {"app": "api"}}}]


def test_workloads_of_one_name_get_policies_of_different_names() -> None:
    made = recording(flow(WEB, "egress", "10.0.0.3", 5432))
    other = Pod("shop", "web-0", "u7", {"app": "other"}, ("10.0.0.77",), owner_kind="StatefulSet", owner_name="web")
    made.inventory.pods.append(other)
    made.add([flow(other, "egress", "10.0.0.3", 1)])
    names = [document.body["metadata"]["name"] for document in networkpolicy.advise(made)]
    assert names == ["web-deployment", "web-statefulset"]


def test_labels_that_another_workload_has_as_well_are_reported() -> None:
    made = recording(flow(WEB, "egress", "10.0.0.3", 5432))
    made.inventory.pods.append(Pod("shop", "web-canary", "u9", {"app": "web", "track": "canary"}, ("10.0.0.9",)))
    (document,) = networkpolicy.advise(made)
    assert "its labels also select these, which are then allowed the same: shop/pod/web-canary" in "\n".join(
        document.comments
    )


def test_cilium_has_endpoints_entities_and_blocks_in_rules_of_their_own() -> None:
    policy, _ = only(
        flow(WEB, "egress", "10.96.0.3", 80),
        flow(WEB, "egress", "10.96.0.1", 443),
        flow(WEB, "egress", "203.0.113.9", 25),
        flow(WEB, "ingress", "192.168.0.1", 8080),
        format="cilium",
    )
    assert (policy["apiVersion"], policy["kind"]) == ("cilium.io/v2", "CiliumNetworkPolicy")
    spec = policy["spec"]
    assert spec["endpointSelector"] == {"matchLabels": {"app": "web"}}
    assert spec["ingress"] == [{"fromEntities": ["host", "remote-node"], "toPorts": ports("8080")}]
    labels = {"k8s:io.kubernetes.pod.namespace": "data", "app": "db"}
    wanted = [
        {"toCIDR": ["203.0.113.9/32"], "toPorts": ports("25")},
        {"toEndpoints": [{"matchLabels": labels}], "toPorts": ports("5432")},
        {"toEntities": ["kube-apiserver"], "toPorts": ports("6443")},
    ]
    assert spec["egress"] == wanted


def ports(number: str) -> list[dict[str, Any]]:
    return [{"ports": [{"port": number, "protocol": "TCP"}]}]


def test_cilium_closes_a_direction_in_which_nothing_went() -> None:
    policy, _ = only(flow(WEB, "egress", "10.0.0.3", 5432), format="cilium")
    assert policy["spec"]["ingress"] == [{}]


def test_the_output_is_yaml_without_aliases_and_json_is_the_same() -> None:
    documents = networkpolicy.advise(recording(flow(WEB, "egress", "10.0.0.3", 1), flow(DB, "ingress", "10.0.0.1", 1)))
    text = as_yaml(documents)
    assert "&id" not in text
    assert list(yaml.safe_load_all(text)) == [document.body for document in documents]
    assert yaml.safe_load(as_json(documents))["items"] == [document.body for document in documents]


LABEL = "app.kubernetes.io/name"


def test_no_advice_is_given_on_what_was_not_looked_at() -> None:
    assert network_policies(behavior(kinds=USUAL_KINDS - {FactKind.LISTEN})) == []


def test_a_policy_allows_what_facts_say_and_names_what_it_cannot() -> None:
    values = ("service shop/redis:6379/tcp", "workload other/deployment/db:5432/tcp", "name api.example.com:443/tcp")
    values += (
        "network 10.1.2.0/24:8080/tcp",
        "node:10250/tcp",
        "localhost:1/tcp",
        "service default/kubernetes:443/tcp",
    )
    found = behavior(*(fact("connect", "/bin/cart", value) for value in values), fact("listen", "/bin/cart", "80/tcp"))

    (document,) = network_policies(found)

    spec = document.body["spec"]
    assert spec["ingress"] == [{"ports": [{"protocol": "TCP", "port": 80}]}]
    assert {"podSelector": {"matchLabels": {LABEL: "redis"}}} in [rule["to"][0] for rule in spec["egress"]]
    assert {"ipBlock": {"cidr": "10.1.2.0/24"}} in [rule["to"][0] for rule in spec["egress"]]
    assert sum("not allowed; add them" in text for text in document.comments) == 2
    assert len(spec["egress"]) == 4


def test_policies_are_ones_that_the_project_reads() -> None:
    found = behavior(fact("connect", "/bin/cart", "internet:443/tcp"), fact("listen", "/bin/cart", "<ephemeral>/udp"))

    (document,) = network_policies(found)

    assert read_policies(json.dumps(document.body), "made.yaml", "shop")


# From rows of single connections, where the recording has no totals


def tcp(operation: str, initiator: str = "", error: str = "", **others: Any) -> dict[str, Any]:
    named = {"this end": ("10.0.0.1", 40000, "10.0.0.3", 5432), "other end": ("10.0.0.1", 80, "10.0.0.3", 40001)}
    local, local_port, remote, remote_port = named.get(initiator, ("10.0.0.1", 1, "10.0.0.9", 2))
    ends = {"local": local, "local_port": local_port, "remote": remote, "remote_port": remote_port}
    owner = {"node": "n1", "namespace": "shop", "pod": WEB.name, "container": "main"}
    return {**owner, **ends, "operation": operation, "initiator": initiator, "error": error, "family": "IPv4", **others}


def udp(operation: str, sent: int, received: int, **others: Any) -> dict[str, Any]:
    row = tcp(operation, "this end") | {"protocol": "UDP", "sent_packets": sent, "received_packets": received}
    del row["initiator"]
    return row | others


def seen(*rows: dict[str, Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
    made = SeenUses(networkpolicy.KIND)
    uses_of = networkpolicy.FlowsOfRows(made)
    for row in rows:
        made.add(uses_of(row))
    return [
        (use["direction"], use["protocol"], use["port"], use["connections"], use["received_packets"] > 0)
        for use in made.uses
    ], made.lacking


def test_the_end_that_connected_began_a_connection_and_a_closed_port_is_an_answer() -> None:
    assert seen(tcp("connect", "this end"), tcp("close", "this end")) == ([("egress", "TCP", 5432, 1, True)], [])
    assert seen(tcp("accept", "other end"), tcp("open", "other end")) == ([("ingress", "TCP", 80, 2, True)], [])
    assert seen(tcp("connect", "this end", "ECONNREFUSED"))[0] == [("egress", "TCP", 5432, 1, True)]
    assert seen(tcp("connect", "this end", "ETIMEDOUT"))[0] == [("egress", "TCP", 5432, 1, False)]
    assert seen(tcp("connect", "this end", "ENETUNREACH"), tcp("accept", "other end", "EMFILE"))[0] == []


def test_a_connection_whose_beginning_is_unknown_gets_no_rule_but_a_warning() -> None:
    found, lacking = seen(tcp("close"), tcp("close"))
    assert found == []
    assert len(lacking) == 1
    assert "which side began" in lacking[0]


def test_the_first_packet_of_udp_says_who_began_and_later_rows_whether_it_was_answered() -> None:
    assert seen(udp("first", 1, 0)) == ([("egress", "UDP", 5432, 1, False)], [])
    assert seen(udp("first", 1, 0), udp("end", 1, 1)) == ([("egress", "UDP", 5432, 1, True)], [])
    server = {"local_port": 53, "remote_port": 9}
    assert seen(udp("first", 0, 1, **server), udp("end", 1, 1, **server))[0] == [("ingress", "UDP", 53, 1, True)]
    assert seen(udp("end", 3, 3))[0] == []


def test_packets_with_headers_of_the_programs_own_are_no_flows() -> None:
    assert seen(udp("first", 1, 0, family="packet"), udp("first", 1, 0, family="xdp"))[0] == []
