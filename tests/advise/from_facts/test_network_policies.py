"""Network policies from facts."""

import json

from kubectl_gadget.advise.from_facts.network_policies import network_policies
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from kubectl_gadget.policies.network.evaluate import read_policies
from tests.behavior.made import behavior, fact

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
