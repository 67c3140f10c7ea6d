"""Makes network policies from facts, as far as that is possible.

The trap: a baseline has no labels and no addresses. So policies select by the usual label, which people have to check,
and a DNS name becomes a rule for its port at any address outside; `advise` with a live run or a recording knows more.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_gadget.advise.documents import Document
from kubectl_gadget.advise.from_facts.baselines import by_workload, file_name
from kubectl_gadget.behavior.facts import Behavior, Fact, FactKind
from kubectl_gadget.behavior.from_rows.destinations import EPHEMERAL
from kubectl_gadget.kube.inventory import LOCAL_LABEL, Workload
from kubectl_gadget.policies.network.peers import NAMESPACE_LABEL

_INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
_OUTSIDE = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_INSIDE)}}


def network_policies(behavior: Behavior) -> list[Document]:
    """A policy for each workload that was watched for connections."""
    documents = []
    for workload, units in by_workload(behavior):
        if any({FactKind.CONNECT, FactKind.LISTEN} - behavior.coverage[unit].kinds for unit in units):
            continue
        facts = [fact for fact in behavior.facts if fact.workload == workload]
        egress = list(dict.fromkeys(fact.value for fact in facts if fact.kind is FactKind.CONNECT))
        comments = [f"{workload}: a baseline has no labels. Check every {LOCAL_LABEL} below."]
        rules = [rule for value in egress for rule in _egress(value, workload, comments)]
        body = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": workload.name, "namespace": workload.namespace or "default"},
            "spec": {
                "podSelector": {"matchLabels": {LOCAL_LABEL: workload.name}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": list(_ingress(facts, comments)),
                "egress": rules,
            },
        }
        documents.append(Document(body, tuple(comments), file_name(workload)))
    return documents


def _ingress(facts: Sequence[Fact], comments: list[str]) -> Iterator[dict[str, Any]]:
    ports = sorted({fact.value for fact in facts if fact.kind is FactKind.LISTEN})
    chosen = [_port(value) for value in ports if not value.startswith(EPHEMERAL)]
    if chosen:
        comments.append(f"  from anywhere to the ports that it listens on: {', '.join(ports)}; say from where")
        yield {"ports": chosen}


def _egress(value: str, workload: Workload, comments: list[str]) -> Iterator[dict[str, Any]]:
    where, _, port_text = value.rpartition(":")
    kind, _, name = where.partition(" ")
    if where == "localhost" or kind == "multicast":
        return
    peer: dict[str, Any] | None = None
    if kind in ("service", "workload"):
        namespace, _, rest = name.partition("/")
        pods = {"podSelector": {"matchLabels": {LOCAL_LABEL: rest.rpartition("/")[2]}}}
        other = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: namespace}}}
        peer = pods if namespace in ("", workload.namespace) else {**other, **pods}
    elif kind == "network" and "/" in name:
        peer = {"ipBlock": {"cidr": name}}
    elif kind in ("internet", "name"):
        peer = _OUTSIDE
    if peer is None or name == "default/kubernetes":
        comments.append(f"  to {value}: its addresses are not in a baseline, so it is not allowed; add them")
        return
    comments.append(f"  to {value}{'; a policy cannot name it, so anything outside' if peer is _OUTSIDE else ''}")
    ports = [] if port_text.startswith(EPHEMERAL) else [_port(port_text)]
    yield {"to": [peer], **({"ports": ports} if ports else {})}


def _port(text: str) -> dict[str, Any]:
    number, _, protocol = text.partition("/")
    return {"protocol": protocol.upper(), "port": int(number)}
