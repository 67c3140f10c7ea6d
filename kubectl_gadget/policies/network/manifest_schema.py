"""The fields of a NetworkPolicy (networking.k8s.io/v1), which yaml_reader.py checks.

The trap: unknown fields are rejected, since a policy that is only half understood may select other pods.
"""

from kubectl_gadget.kube.object_schema import labels_field, metadata_field
from kubectl_gadget.yaml_schema import SchemaField

VERSION = "networking.k8s.io/v1"
EXPLAINED_BY = "kubectl explain networkpolicy."


def _object(name: str, *fields: SchemaField) -> SchemaField:
    return SchemaField(name, "object", fields=fields)


def _objects(name: str, *fields: SchemaField) -> SchemaField:
    return SchemaField(name, "list of object", fields=fields)


def _rules(name: str, peers: str) -> SchemaField:
    block = _object("ipBlock", SchemaField("cidr", "text", required=True), SchemaField("except", "list of text"))
    peer = (labels_field("podSelector"), labels_field("namespaceSelector"), block)
    port = (SchemaField("protocol", "text"), SchemaField("port", "number"), SchemaField("endPort", "number"))
    return _objects(name, _objects(peers, *peer), _objects("ports", *port))


NETWORK_POLICY = _object(
    "policy",
    SchemaField("apiVersion", "text", required=True),
    SchemaField("kind", "text", required=True),
    metadata_field(),
    _object(
        "spec",
        labels_field("podSelector"),
        SchemaField("policyTypes", "list of text"),
        _rules("ingress", "from"),
        _rules("egress", "to"),
    ),
    SchemaField("status", "anything"),
)
