"""Fields that objects of several kinds have, for reading them as YAML: metadata and label selectors.

The trap: a label selector may also be empty, which selects everything.
"""

from kubectl_gadget.kube.label_selectors import OPERATORS
from kubectl_gadget.yaml_schema import SchemaField

_WRITTEN_BY_SERVER = (
    *("creationTimestamp", "deletionTimestamp", "finalizers", "generateName", "generation", "managedFields"),
    *("ownerReferences", "resourceVersion", "selfLink", "uid"),
)


def metadata_field(description: str = "", name: str = "", namespace: str = "") -> SchemaField:
    """`metadata` of a policy: its description, and those of its name and of its namespace."""
    fields = (
        SchemaField("name", "text", name, required=True),
        SchemaField("namespace", "text", namespace),
        SchemaField("labels", "map of text", "Labels of the policy."),
        SchemaField("annotations", "map of text", "Notes for people and tools."),
        *(SchemaField(name, "anything", "Written by the API server; ignored.") for name in _WRITTEN_BY_SERVER),
    )
    return SchemaField("metadata", "object", description, fields, required=True)


def labels_field(name: str, description: str = "") -> SchemaField:
    expressions = (
        SchemaField("key", "text", "The label.", required=True),
        SchemaField(
            "operator",
            "text",
            "NotIn and DoesNotExist also select objects without this label.",
            required=True,
            choices=OPERATORS,
        ),
        SchemaField("values", "list of text", "For In and NotIn: any of them."),
    )
    return SchemaField(
        name,
        "object",
        description,
        (
            SchemaField("matchLabels", "map of text", "Labels and their values; all must be present."),
            SchemaField("matchExpressions", "list of object", "Conditions on labels; all have to hold.", expressions),
        ),
    )
