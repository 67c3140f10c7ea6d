"""Label selectors in both notations: kubectl's `app=x,tier!=db,env in (a,b),!legacy`, and matchLabels with
matchExpressions as in objects.

The API server could evaluate them, but an agent's filter also needs the pods that do *not* match, from the same watch.
Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors. The trap: `key !=
value` and `key notin (…)` also match objects that do not have the label at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.yaml_files import SchemaField

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<key>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|(?P<set_key>{_KEY})\s+(?P<set_operator>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<absent>!\s*)?(?P<exists>{_KEY}))\s*(?:,|$)"
)
_WHOLE_VALUE = re.compile(_VALUE)


LabelOperator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
OPERATORS: tuple[LabelOperator, ...] = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True)
class Requirement:
    """One condition of a label selector."""

    key: str
    operator: LabelOperator
    values: tuple[str, ...] = ()

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """True if an object with these labels meets the condition."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None


@dataclass(frozen=True)
class LabelSelector:
    """A parsed selector."""

    requirements: tuple[Requirement, ...]

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """True if an object with these labels is selected."""
        return all(requirement.accepts(labels) for requirement in self.requirements)


def parse(text: str) -> LabelSelector:
    """Parses kubectl's notation. Raises UsageError that shows the position of the mistake."""
    requirements = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise UsageError(
                f"invalid label selector {text!r} at character {position + 1}: {text[position:]!r}",
                "-l app=web,tier!=db   or   -l 'env in (a,b),!legacy'",
            )
        requirements.append(_requirement(match, text))
        position = match.end()
    if text.rstrip().endswith(","):
        raise UsageError(f"the label selector {text!r} ends with a comma")
    return LabelSelector(tuple(requirements))


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """True if a validated LabelSelector of the API selects an object; an empty one selects all."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        Requirement(term["key"], term["operator"], tuple(term.get("values") or ())).accepts(labels)
        for term in selector.get("matchExpressions") or ()
    )


def _requirement(match: re.Match[str], text: str) -> Requirement:
    if key := match["key"]:
        return Requirement(key, "NotIn" if match["operator"] == "!=" else "In", (match["value"],))
    if key := match["set_key"]:
        values = [value.strip() for value in match["values"].split(",")]
        for value in values:
            if not _WHOLE_VALUE.fullmatch(value):
                raise UsageError(f"{value!r} in the label selector {text!r} is not a label value")
        return Requirement(key, "NotIn" if match["set_operator"] == "notin" else "In", tuple(values))
    return Requirement(match["exists"], "Exists" if match["absent"] is None else "DoesNotExist")


# Fields that objects of several kinds have when they are read as YAML: metadata and label selectors.


_WRITTEN_BY_SERVER = (
    *("creationTimestamp", "deletionTimestamp", "finalizers", "generateName", "generation", "managedFields"),
    *("ownerReferences", "resourceVersion", "selfLink", "uid"),
)


def metadata_field(description: str = "", name: str = "", namespace: str = "") -> SchemaField:
    """Return the field `metadata` of a policy, with descriptions of it, its name and its namespace."""
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
