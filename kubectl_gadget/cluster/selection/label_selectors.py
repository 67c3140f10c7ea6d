"""kubectl's label selectors, decided here: `app=x,tier!=db,env in (a,b),!legacy`.

The API server could decide them, but an agent's filter needs the pods that do *not* match as well, from one and the
same watch. Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors.
The trap: `key != value` and `key notin (…)` match objects that have no such label at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_gadget.errors import UsageError

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<key>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|(?P<set_key>{_KEY})\s+(?P<set_operator>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<absent>!\s*)?(?P<exists>{_KEY}))\s*(?:,|$)"
)
_WHOLE_VALUE = re.compile(_VALUE)


@dataclass(frozen=True)
class _Requirement:
    key: str
    values: frozenset[str] | None
    """None: any value"""
    negated: bool

    def accepts(self, labels: Mapping[str, str]) -> bool:
        found = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return found is not self.negated


@dataclass(frozen=True)
class LabelSelector:
    """A selector that was understood."""

    requirements: tuple[_Requirement, ...]

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(requirement.accepts(labels) for requirement in self.requirements)


def parse(text: str) -> LabelSelector:
    """Raises UsageError that says where the selector is wrong."""
    requirements = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise UsageError(
                f"the label selector {text!r} is wrong at character {position + 1}: {text[position:]!r}",
                "-l app=web,tier!=db   or   -l 'env in (a,b),!legacy'",
            )
        requirements.append(_requirement(match, text))
        position = match.end()
    if text.rstrip().endswith(","):
        raise UsageError(f"the label selector {text!r} ends with a comma")
    return LabelSelector(tuple(requirements))


def _requirement(match: re.Match[str], text: str) -> _Requirement:
    if key := match["key"]:
        return _Requirement(key, frozenset([match["value"]]), match["operator"] == "!=")
    if key := match["set_key"]:
        values = [value.strip() for value in match["values"].split(",")]
        for value in values:
            if not _WHOLE_VALUE.fullmatch(value):
                raise UsageError(f"{value!r} in the label selector {text!r} is not a label value")
        return _Requirement(key, frozenset(values), match["set_operator"] == "notin")
    return _Requirement(match["exists"], None, match["absent"] is not None)
