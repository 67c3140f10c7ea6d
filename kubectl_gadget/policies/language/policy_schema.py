"""The schema of TracingPolicy (policy_schema.yaml). Used for reading (`yaml_reader.py` rejects any other field) and for
`kubectl gadget policy explain`.

The trap: a list of choices that other tables decide has only a name in the file, and stands in `_CHOICES`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubectl_gadget.kube.object_schema import labels_field, metadata_field
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.language.operators import ARGUMENT_OPERATORS, BINARY_OPERATORS, SET_OPERATORS
from kubectl_gadget.policies.model import NAMESPACES
from kubectl_gadget.yaml_schema import SchemaField, own_schema

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


_OF_OBJECTS: dict[str, Callable[[str, Mapping[str, Any]], SchemaField]] = {
    "labels": lambda name, written: labels_field(name, written["description"]),
    "metadata": lambda _, written: metadata_field(written["description"], written["name"], written["namespace"]),
}
POLICY = own_schema(Path(__file__).with_suffix(".yaml"), "policy", _CHOICES, _OF_OBJECTS)
