"""The schema as text for people, like `kubectl explain`: a field, its description, and the fields in it."""

import textwrap
from collections.abc import Iterator, Sequence

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language import ARGUMENT_OPERATORS, ARGUMENT_TYPES, POLICY, TESTS_OF_GROUP, test_of
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_files import SchemaField

_TYPES = {
    "text": "string",
    "word": "string",
    "text or number": "string",
    "flag": "boolean",
    "number": "integer",
    "values": "[]string or integer",
    "list of text": "[]string",
    "object": "Object",
    "list of object": "[]Object",
    "map of text": "map[string]string",
    "map of object": "map[string]Object",
    "anything": "any",
    "unsupported": "not supported",
}
_INDENT = "    "


def find_field(path: str) -> tuple[SchemaField, str]:
    """The field at a path such as `spec.kprobes.call`, and its whole path. `spec.` may be omitted. Raises
    UsageError."""
    steps = [step for step in path.split(".") if step]
    if steps and steps[0].lower() in ("tracingpolicy", "tracingpolicynamespaced", "policy"):
        steps = steps[1:]
    top = {field.name for field in POLICY.fields}
    if steps and steps[0] not in top:
        steps = ["spec", *steps]
    field, found = POLICY, list[str]()
    for step in steps:
        by_name = {inner.name.lower(): inner for inner in field.fields}
        name = step.split("[")[0].lower()
        if name not in by_name:
            where = ".".join(found) or "a policy"
            path = where if found else ""
            below = list(_below(field, path))
            deeper = next((where for where, inner in below if inner.name.lower() == name), "")
            of_value = next((where for where, inner in below if step in inner.choices), "")
            known = [inner.name for inner in field.fields]
            instead = did_you_mean(step, known) if known else ""
            if deeper or of_value:
                instead = f"; there is {deeper}" if deeper else f"; it is a value of {of_value}"
                deeper = deeper or of_value
            remedy = f"kubectl gadget policy explain {deeper}" if deeper else None
            raise UsageError(f"{where} has no field {step!r}{instead}", remedy)
        field = by_name[name]
        found.append(field.name)
    return field, ".".join(found)


def _below(field: SchemaField, path: str) -> Iterator[tuple[str, SchemaField]]:
    """All nested fields, each with its path."""
    for inner in field.fields:
        where = f"{path}.{inner.name}".lstrip(".")
        yield where, inner
        yield from _below(inner, where)


def explain_field(path: str, width: int = 100, deep: bool = False) -> str:
    """The text on a field; `deep` also lists the fields of its fields."""
    field, whole = find_field(path)
    lines = ["KIND:       TracingPolicy, TracingPolicyNamespaced", "VERSION:    cilium.io/v1alpha1", ""]
    lines += [f"FIELD: {whole or 'the policy'} <{_TYPES[field.kind]}>", "", "DESCRIPTION:"]
    lines += _wrapped(field.description, width, _INDENT)
    lines += [f"{_INDENT}Required."] if field.required else []
    lines += [f"{_INDENT}Default: {field.default}"] if field.default else []
    if field.name == "type" and "auto" in field.choices:
        lines += ["", "TYPES:", *_types(width)]
    elif field.choices:
        lines += ["", "VALUES:", *_wrapped(", ".join(field.choices), width, _INDENT)]
    if field.fields:
        lines += ["", "FIELDS:", *(_tree(field.fields, _INDENT) if deep else _fields(field.fields, width))]
    return "\n".join(lines) + "\n"


def _fields(fields: Sequence[SchemaField], width: int) -> list[str]:
    lines: list[str] = []
    for field in fields:
        required = " -required-" if field.required else ""
        lines += [f"{_INDENT}{field.name} <{_TYPES[field.kind]}>{required}"]
        lines += [*_wrapped(field.description, width, _INDENT * 2), ""]
    return lines[:-1]


def _tree(fields: Sequence[SchemaField], indent: str) -> list[str]:
    lines = []
    for field in fields:
        lines.append(f"{indent}{field.name} <{_TYPES[field.kind]}>")
        lines += _tree(field.fields, indent + "  ")
    return lines


def _types(width: int) -> list[str]:
    lines = []
    for name, type in ARGUMENT_TYPES.items():
        lines += [f"{_INDENT}{name}", *_wrapped(type.description, width, _INDENT * 2)]
        operators = [one for one in ARGUMENT_OPERATORS if test_of(one)[0] in TESTS_OF_GROUP[type.group]]
        if operators and type.group != "auto":
            lines += _wrapped(f"Operators: {', '.join(operators)}", width, _INDENT * 2)
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
