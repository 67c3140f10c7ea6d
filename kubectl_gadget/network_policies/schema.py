"""The fields of a NetworkPolicy (networking.k8s.io/v1), which policies/read/document.py checks.

The trap: unknown fields are refused, since a policy that is half understood selects other pods.
"""

from kubectl_gadget.policies.read.schema import METADATA, Field

VERSION = "networking.k8s.io/v1"
EXPLAINED_BY = "kubectl explain networkpolicy."


def _object(name: str, *fields: Field, kind: str = "object") -> Field:
    return Field(name, "objects" if kind == "objects" else "object", "", fields)


def _selector(name: str) -> Field:
    term = (
        Field("key", "text", "", required=True),
        Field("operator", "text", "", required=True),
        Field("values", "texts", ""),
    )
    return _object(name, Field("matchLabels", "text map", ""), _object("matchExpressions", *term, kind="objects"))


def _rules(name: str, peers: str) -> Field:
    block = _object("ipBlock", Field("cidr", "text", "", required=True), Field("except", "texts", ""))
    peer = (_selector("podSelector"), _selector("namespaceSelector"), block)
    port = (Field("protocol", "text", ""), Field("port", "number", ""), Field("endPort", "number", ""))
    return _object(name, _object(peers, *peer, kind="objects"), _object("ports", *port, kind="objects"), kind="objects")


NETWORK_POLICY = _object(
    "policy",
    Field("apiVersion", "text", "", required=True),
    Field("kind", "text", "", required=True),
    Field("metadata", "object", "", METADATA, required=True),
    _object(
        "spec",
        _selector("podSelector"),
        Field("policyTypes", "texts", ""),
        _rules("ingress", "from"),
        _rules("egress", "to"),
    ),
    Field("status", "anything", ""),
)
