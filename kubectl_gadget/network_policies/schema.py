"""The fields of a NetworkPolicy (networking.k8s.io/v1), which yaml_reader.py checks.

The trap: unknown fields are rejected, since a policy that is only half understood may select other pods.
"""

from kubectl_gadget.policies.language.policy_schema import METADATA
from kubectl_gadget.yaml_schema import SchemaField

VERSION = "networking.k8s.io/v1"
EXPLAINED_BY = "kubectl explain networkpolicy."


def _object(name: str, *fields: SchemaField, kind: str = "object") -> SchemaField:
    return SchemaField(name, "objects" if kind == "objects" else "object", "", fields)


def _selector(name: str) -> SchemaField:
    term = (
        SchemaField("key", "text", "", required=True),
        SchemaField("operator", "text", "", required=True),
        SchemaField("values", "texts", ""),
    )
    return _object(name, SchemaField("matchLabels", "text map", ""), _object("matchExpressions", *term, kind="objects"))


def _rules(name: str, peers: str) -> SchemaField:
    block = _object("ipBlock", SchemaField("cidr", "text", "", required=True), SchemaField("except", "texts", ""))
    peer = (_selector("podSelector"), _selector("namespaceSelector"), block)
    port = (
        SchemaField("protocol", "text", ""),
        SchemaField("port", "number", ""),
        SchemaField("endPort", "number", ""),
    )
    return _object(name, _object(peers, *peer, kind="objects"), _object("ports", *port, kind="objects"), kind="objects")


NETWORK_POLICY = _object(
    "policy",
    SchemaField("apiVersion", "text", "", required=True),
    SchemaField("kind", "text", "", required=True),
    SchemaField("metadata", "object", "", METADATA, required=True),
    _object(
        "spec",
        _selector("podSelector"),
        SchemaField("policyTypes", "texts", ""),
        _rules("ingress", "from"),
        _rules("egress", "to"),
    ),
    SchemaField("status", "anything", ""),
)
