"""What policies would have blocked: the API's rules on selectors, ports and directions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise import networkpolicy
from kubectl_gadget.advise.documents import as_yaml
from kubectl_gadget.advise.uses import SeenUses, Use
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Inventory
from kubectl_gadget.policies.network.evaluate import Blocked, blocked, read_policies
from tests.advise.flows import WEB, flow, recording
from tests.advise.test_networkpolicy import FACTS, PODS

CALLS_DB = flow(WEB, "egress", "10.0.0.3", 5432)
CALLED_BY_DB = flow(WEB, "ingress", "10.0.0.3", 80)


def policy(spec: dict[str, Any], namespace: str = "shop") -> list[Any]:
    return [{"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}]


def egress(*rules: dict[str, Any]) -> list[Any]:
    return policy({"policyTypes": ["Egress"], "egress": list(rules)})


def of_namespaces(term: dict[str, Any]) -> dict[str, Any]:
    return {"to": [{"namespaceSelector": {"matchExpressions": [term]}}]}


def judged(seen: SeenUses, policies: list[Any]) -> list[Blocked]:
    return blocked(seen.inventory, seen.uses, policies)


def is_blocked(policies: list[Any], use: Use = CALLS_DB) -> bool:
    return bool(judged(recording(use), policies))


def test_a_pod_that_no_policy_selects_is_free() -> None:
    assert not is_blocked(policy({"policyTypes": ["Egress"]}, "other"))
    assert not is_blocked(policy({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Egress"]}))
    assert not is_blocked(policy({"policyTypes": ["Ingress"]}))


def test_without_policy_types_ingress_is_meant_and_egress_only_when_it_has_rules() -> None:
    assert is_blocked(policy({}), CALLED_BY_DB)
    assert not is_blocked(policy({}))
    assert is_blocked(policy({"egress": [{"ports": [{"port": 1}]}]}))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, False),
        ({"ports": [{"port": 5432}]}, False),
        ({"ports": [{"port": 5432, "protocol": "UDP"}]}, True),
        ({"ports": [{"port": 5000, "endPort": 5999}]}, False),
        ({"ports": [{"port": 5000, "endPort": 5431}]}, True),
        ({"ports": [{"port": "postgres"}]}, False),
        ({"ports": [{"port": "mysql"}]}, True),
        ({"ports": [{"protocol": "TCP"}]}, False),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, False),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.3/32"]}}]}, True),
        ({"to": [{"ipBlock": {"cidr": "fd00::/8"}}]}, True),
        ({"to": [{"podSelector": {}}]}, True),
        ({"to": [{"namespaceSelector": {}}]}, False),
        ({"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]}, True),
        ({"to": [{"namespaceSelector": {"matchLabels": {"team": "data"}}}]}, False),
        (of_namespaces({"key": "team", "operator": "Exists"}), False),
        (of_namespaces({"key": "team", "operator": "DoesNotExist"}), True),
        (of_namespaces({"key": "team", "operator": "In", "values": ["x"]}), True),
        (of_namespaces({"key": "no", "operator": "NotIn", "values": ["x"]}), False),
    ],
)  # fmt: skip
def test_a_rule_allows_what_its_peers_and_its_ports_say(rule: dict[str, Any], expected: bool) -> None:
    made = recording(CALLS_DB)
    made.inventory.namespaces["data"] = {"team": "data"}
    assert bool(judged(made, egress(rule))) is expected


def test_a_call_of_a_service_is_judged_by_its_backends_and_their_ports() -> None:
    call = flow(WEB, "egress", "10.96.0.3", 80)
    assert not is_blocked(egress({"to": [{"namespaceSelector": {}}], "ports": [{"port": 5432}]}), call)
    assert is_blocked(egress({"to": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}), call)


def test_what_is_blocked_is_reported_with_peer_and_policies() -> None:
    (found,) = judged(recording(CALLS_DB), egress({"ports": [{"port": 1}]}))
    assert (found.pod, found.direction, found.port, found.policies) == (WEB.name, "egress", 5432, ("p",))
    assert found.peer == "pod data/db-0"


@given(st.lists(FACTS, max_size=20), st.lists(FACTS, max_size=20))
def test_policies_made_of_a_recording_block_nothing_of_it_and_new_flows_in_a_second_one(
    first: list[Use], second: list[Use]
) -> None:
    def recorded(uses: list[Use]) -> SeenUses:
        made = SeenUses(networkpolicy.KIND, inventory=Inventory(list(PODS)))
        made.add(uses)
        return made

    documents = networkpolicy.advise(recorded(first))
    if not documents:
        return
    policies = read_policies(as_yaml(documents), "file", "default")
    assert judged(recorded(first), policies) == []
    alone = {item.namespace + item.pod + item.direction + item.remote for item in judged(recorded(second), policies)}
    names = {(use["namespace"], use["pod"]) for use in first}
    assert not [use for use in second if use["namespace"] + use["pod"] + use["direction"] + use["remote"] in alone
                and (use["namespace"], use["pod"]) not in names]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "file:2:1: is not valid YAML: a value is missing"),
        ("a:\n  b: 1\n c: 2\n", "file:3:2: is not valid YAML: unexpected here: check the indentation"),
        ("", "contains no NetworkPolicy"),
        ("- 1", "is not a Kubernetes object"),
        ("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy}", "expected networking.k8s.io/v1 NetworkPolicy"),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, "
            "spec: {podSelector: {matchExpressions: [{key: a, operator: Is}]}}}",
            r"matchExpressions\[0\]\.operator 'Is' is not known; it is one of In",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, status: 2026-99-99}",
            "is not a valid timestamp",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x},\n status: {[a]: b}}",
            "file:2:11: is not valid YAML: found unhashable key",
        ),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_policies(text, "file", "default")


def test_lists_are_read_and_a_policy_without_a_namespace_is_in_the_given_one() -> None:
    text = "{kind: List, items: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}}]}"
    (found,) = read_policies(text, "file", "here")
    assert found["metadata"] == {"name": "x", "namespace": "here"}
