"""What the API server would refuse is refused by name, before anything is started."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Inventory, Pod
from kubectl_gadget.kube.resources import NAMESPACES, NETWORK_POLICIES, PODS
from kubectl_gadget.policies.network.compile import Compiler
from kubectl_gadget.policies.network.evaluate import read_policies
from kubectl_gadget.policies.network.kernel_tables import INGRESS
from kubectl_gadget.policies.network.run import LivePolicyTables, inventory, read_files, read_objects
from tests.examples import examples
from tests.spoilt import spoilt


def written(path: Path, spec: Any, name: str = "p.yaml") -> str:
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec}
    (path / name).write_text(yaml.safe_dump(policy))
    return str(path / name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"ingres": []}, r"p\.yaml:6:3: spec\.ingres is not known; did you mean ingress\?"),
        ({"policyTypes": ["Both"]}, "invalid policyTypes 'Both'"),
        ({"ingress": [{"to": []}]}, r"ingress\[0\]\.to is not known; it is one of from, ports"),
        ({"egress": [{"ports": [{"port": 0}]}]}, "0 is not a port"),
        ({"egress": [{"ports": [{"protocol": "ICMP"}]}]}, "invalid protocol 'ICMP': expected one of"),
        ({"egress": [{"ports": [{"port": "web", "endPort": 9}]}]}, "endPort 9 needs a numeric port"),
        ({"egress": [{"ports": [{"port": 9, "endPort": 8}]}]}, "endPort 8 needs a numeric port"),
        ({"egress": [{"to": [{}]}]}, "a peer is empty"),
        ({"egress": [{"to": [{"ipBlock": None}]}]}, "invalid ipBlock"),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "1.2.3.4/33"}}]}]},
            r"to\[0\]\.ipBlock\.cidr '1.2.3.4/33' is not an address block",
        ),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]},
            "ipBlock cannot be combined with a selector",
        ),
        ({"egress": [{"to": [{"fqdn": "x"}]}]}, r"egress\[0\]\.to\[0\]\.fqdn is not known"),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}]},
            "is not a smaller part of",
        ),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]},
            "is not a smaller part of",
        ),
    ],
)
def test_a_policy_that_is_not_as_the_api_has_it_is_refused(tmp_path: Path, spec: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_files([written(tmp_path, spec)], "default")


def test_all_yaml_of_a_folder_is_read(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml"):
        path = Path(written(tmp_path, {}, name))
        path.write_text(path.read_text().replace("name: p", f"name: {path.stem}"))
    (tmp_path / "notes.txt").write_text("no policy")
    assert len(read_files([str(tmp_path)], "default")) == 2


HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}metadata: {{name: p}}\nspc: {{}}\n", r"p\.yaml:4:1: spc is not known; did you mean spec"),
        (f"{HEAD}metadata: {{}}\nspec: {{}}\n", r"p\.yaml:3:11: metadata lacks name"),
        (
            f"{HEAD}metadata: {{name: p}}\nspec: {{podSelector: {{}}, podSelector: {{}}}}\n",
            r"p\.yaml:4:25: spec\.podSelector is set twice",
        ),
        (f"{HEAD}metadata: {{name: p}}\n---\n{HEAD}metadata: {{name: p}}\n", r"default/p is also in .*p\.yaml"),
        ("kind: NetworkPolicy\nmetadata: {name: p}\n", "is a NetworkPolicy without apiVersion"),
        ("apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\n", "is a cilium.io/v1alpha1 TracingPolicy; expected"),
    ],
)
def test_what_would_be_half_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_files([str(tmp_path / "p.yaml")], "default")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.yaml: No such file"):
        read_files([str(tmp_path / "no.yaml")], "default")


def pod(name: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": name}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": phase, "podIPs": [{"ip": "10.0.0.1"}]},
    }


def test_an_ended_pod_has_no_address_any_more() -> None:
    found = inventory({PODS: [pod("old", "Succeeded"), pod("new")]})
    assert [item.name for item in found.pods] == ["new"]


def test_pods_of_the_nodes_network_are_free() -> None:
    made = LivePolicyTables([{"metadata": {"name": "p", "namespace": "shop"}, "spec": {}}])
    made.take({PODS: [pod("proxy", hostNetwork=True), pod("web")], NAMESPACES: []})
    pods = made.tables.of("n1").pods
    assert pods["shop/proxy"][:4] == bytes(4)
    assert pods["shop/web"][:4] != bytes(4)


def test_a_policy_of_a_file_replaces_that_of_the_same_name_in_the_cluster() -> None:
    metadata = {"name": "p", "namespace": "shop"}
    made = LivePolicyTables([{"metadata": metadata, "spec": {"policyTypes": ["Ingress"]}}])
    made.take({PODS: [pod("web")], NETWORK_POLICIES: [{"metadata": metadata, "spec": {"policyTypes": ["Egress"]}}]})
    contents = made.tables.of("n1")
    subject = contents.tables["subjects"][contents.pods["shop/web"][:4]]
    assert subject[0] == INGRESS


def test_policies_of_the_cluster_go_with_those_of_files() -> None:
    made = LivePolicyTables([{"metadata": {"name": "p", "namespace": "shop"}, "spec": {}}])
    made.take({PODS: [], NETWORK_POLICIES: [{"metadata": {"name": "q", "namespace": "data"}, "spec": {}}]})
    assert set(made.tables.of("n1").namespaces) == {"shop", "data"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "objects.yaml:2:1: is not valid YAML"),
        ("- 1", "is not a Kubernetes object"),
        ("kind: Pod", "a Pod without a name"),
        ("{kind: Secret, metadata: {name: x}}", "holds a Secret"),
        (
            "kind: List\nitems:\n- {kind: Pod, metadata: {name: x}}\n- {kind: Pod}",
            r":4:3: items\[1\] holds a Pod without",
        ),
        *(
            (f"kind: Pod\nmetadata: {{name: {name}}}", f":2:18: is not valid YAML: '{shown}")
            for name, shown in (
                ("2026-99-99", "2026-99-99' is not a valid timestamp: write it in quotes if it is a text"),
                ("9" * 5000, "9" * 40 + "' is not a valid int"),
                *((f"!!{kind} ''", f"' is not a valid {kind}") for kind in ("int", "float", "bool", "timestamp")),
            )
        ),
        ("kind: List\nitems: &i\n- {kind: List, items: *i}", "repeats too much by aliases"),
    ],
)
def test_malformed_objects_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "objects.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_objects(str(tmp_path / "objects.yaml"))


def test_a_selector_with_a_field_that_is_not_understood_is_refused() -> None:
    text = yaml.safe_dump({**WHOLE, "spec": {"podSelector": {"matchLabel": {"app": "a"}}}})
    with pytest.raises(UsageError, match=r"podSelector\.matchLabel is not known"):
        read_policies(text, "p.yaml", "default")


WHOLE = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {
        "podSelector": {
            "matchLabels": {"app": "a"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": []}],
        "egress": [
            {
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "web"}],
            }
        ],
    },
}


@given(spoilt(WHOLE))
@example({**WHOLE, "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"": b""}}]}]}})
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_policy_is_compiled_or_refused_in_words(tmp_path: Path, value: Any) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(value))
    try:
        policies = read_files([str(tmp_path / "p.yaml")], "default")
    except UsageError:
        return
    Compiler().compile(policies, Inventory(pods=[Pod("n", "web", labels={"app": "a"}, addresses=("10.0.0.1",))]))
