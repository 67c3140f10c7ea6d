"""The schema of TracingPolicy (policy_schema.yaml). Used for reading (`yaml_reader.py` rejects any other field) and for
`kubectl gadget policy explain`.

The trap: a list of choices that other tables decide has only a name in the file, and stands in `_CHOICES`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubectl_gadget.kube.object_schema import labels_field, metadata_field
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.language.operators import ARGUMENT_OPERATORS, BINARY_OPERATORS, SET_OPERATORS
from kubectl_gadget.policies.model import NAMESPACES
from kubectl_gadget.yaml_files import own_data
from kubectl_gadget.yaml_schema import SchemaField

API_VERSION = "cilium.io/v1alpha1"
POLICY_KINDS = ("TracingPolicy", "TracingPolicyNamespaced")
NAMESPACE_NAMES = {"".join(word.capitalize() for word in name.split("_")): name for name in NAMESPACES}
"""By the spelling in policies: Uts, PidForChildren, …"""
_CHOICES = {
    "types of arguments": tuple(ARGUMENT_TYPES),
    "operators for arguments": ARGUMENT_OPERATORS,
    "operators for binaries": BINARY_OPERATORS,
    "operators for sets": SET_OPERATORS,
    "kinds of namespaces": tuple(NAMESPACE_NAMES),
}


def _field(name: str, written: Mapping[str, Any]) -> SchemaField:
    if written["kind"] == "labels":
        return labels_field(name, written["description"])
    if written["kind"] == "metadata":
        return metadata_field(written["description"], written["name"], written["namespace"])
    choices = written.get("choices", ())
    return SchemaField(
        name,
        written["kind"],
        written["description"],
        tuple(_field(*field) for field in written.get("fields", {}).items()),
        written.get("required", False),
        written.get("default", ""),
        _CHOICES[choices] if isinstance(choices, str) else tuple(choices),
    )


POLICY = _field("policy", own_data(Path(__file__).with_suffix(".yaml"))["policy"])
