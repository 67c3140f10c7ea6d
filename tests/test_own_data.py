"""YAML files of the package that a run reads without checks, to start fast, fit their schemas."""

from pathlib import Path
from typing import get_args

import pytest

import kubectl_gadget
from kubectl_gadget.behavior import new_facts
from kubectl_gadget.cli.observe import CHOICE
from kubectl_gadget.cli.pages import PANELS
from kubectl_gadget.diagnose.rules import own_files
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget, Show, owner_source
from kubectl_gadget.observe import story
from kubectl_gadget.policies.check import Often
from kubectl_gadget.policies.language import Group
from kubectl_gadget.policies.model import Test as PolicyTest
from kubectl_gadget.rows.members import KINDS
from kubectl_gadget.yaml_files import Kind, SchemaField, own_data, read_yaml
from kubectl_gadget.yaml_reader import Part, read_mapping

PACKAGE = Path(kubectl_gadget.__file__).parent
CHECKED_BY_THEIR_READERS = {
    "analysis/redaction_rules.yaml",
    "behavior/generalization_rules.yaml",
    "behavior/risks.yaml",
    "gadgets/every_gadget.yaml",
    "gadgets/histogram.yaml",
    "demo/network-policies.yaml",
    *(f"diagnose/rules/{file.name}" for file in own_files()),
    "diagnose/gadgets.yaml",
    "diagnose/last_words.yaml",
}


def mapping(*fields: SchemaField, name: str = "", kind: Kind = "object", required: bool = True) -> SchemaField:
    return SchemaField(name, kind, fields=fields, required=required)


def text(name: str, required: bool = False, choices: tuple[str, ...] = ()) -> SchemaField:
    return SchemaField(name, "text", required=required, choices=choices)


ROWS = mapping(
    text("name", True),
    SchemaField("command", "list of text", required=True),
    mapping(text("group", True), text("summary", True), name="about"),
    SchemaField("fields", "map of text", required=True, choices=("__u32", *KINDS)),
    mapping(
        *(text("title"), text("description", True), text("show", choices=get_args(Show))),
        *(text("align", choices=("left", "right")), SchemaField("width", "integer"), SchemaField("stretch", "flag")),
        name="columns",
        kind="map of object",
    ),
)
"""Of files for made_gadget()."""
_GROUPS_OF_FLAGS = (*PANELS, CHOICE)
SCHEMAS = {
    "analysis/views.yaml": mapping(
        *(text(name, True) for name in ("processes", "processes_from_exec", "exit", "no_exit", "join_exit", "tree")),
        *(text(name, True) for name in ("tcp", "udp", "flows")),
    ),
    "behavior/new_facts.yaml": ROWS,
    "cli/equivalents.yaml": mapping(
        *(SchemaField(name, "map of text", required=True) for name in ("commands", "flags"))
    ),
    "cli/pages.yaml": mapping(
        *(text("summary", True), text("listed"), text("usage"), text("more")),
        SchemaField("examples", "map of text"),
        *(SchemaField(name, "list of text", choices=_GROUPS_OF_FLAGS) for name in ("named_only", "silent")),
        kind="map of object",
    ),
    "flows/hubble.yaml": mapping(
        SchemaField("sub_type", "integer", required=True), text("reasons", True), kind="map of object"
    ),
    "observe/story.yaml": ROWS,
    "policies/argument_types.yaml": mapping(
        *(text("group", True, get_args(Group)), text("description")),
        *(SchemaField("bits", "integer"), SchemaField("signed", "flag")),
        kind="map of object",
    ),
    "policies/operators.yaml": SchemaField("", "map of text", choices=get_args(PolicyTest), required=True),
    "policies/hook_facts.yaml": mapping(
        mapping(*(SchemaField(often, "list of text") for often in get_args(Often)), name="often"),
        SchemaField("safe", "map of list of text", required=True),
    ),
}


def checked(path: str) -> Part:
    return read_yaml(PACKAGE / path, lambda content: read_mapping(path, content, SCHEMAS[path]))


def test_each_file_is_checked_somewhere() -> None:
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.yaml") if "built" not in path.parts}
    schemas = {path for path in found if path.endswith("_schema.yaml")}
    assert found - schemas == CHECKED_BY_THEIR_READERS | set(SCHEMAS)


@pytest.mark.parametrize("path", SCHEMAS)
def test_a_file_fits_its_schema(path: str) -> None:
    assert set(checked(path).names()) == set(own_data(PACKAGE / path))


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        ("analysis/views.yaml", "no_exit:", "noexit:", "lacks no_exit"),
        ("behavior/new_facts.yaml", "pid: __u32", "pid: _u32", "fields.pid '_u32' is not known"),
        ("cli/equivalents.yaml", "strace: trace syscalls", "strace:", "commands.strace is empty"),
        ("cli/pages.yaml", "silent: [where]", "silent: [were]", "'were' is not known"),
        ("flows/hubble.yaml", "sub_type: 181", "sub_type: x", "must be a whole number, not x"),
        ("observe/story.yaml", "{width: 20,", "{widht: 20,", "widht is not known; did you mean width?"),
        ("policies/argument_types.yaml", "int: {group: number", "int: {group: nubmer", "did you mean number?"),
        ("policies/operators.yaml", "Equal: equal", "Equal: equals", "'equals' is not known"),
        ("policies/hook_facts.yaml", "seldom:", "sedlom:", "often.sedlom is not known; did you mean seldom?"),
    ],
)
def test_a_mistake_in_a_file_is_found(path: str, old: str, new: str, message: str) -> None:
    written = (PACKAGE / path).read_text()
    assert old in written
    with pytest.raises(UsageError) as error:
        read_mapping(path, written.replace(old, new, 1), SCHEMAS[path])
    assert message in str(error.value)


@pytest.mark.parametrize("gadget", [story.GADGET, new_facts.GADGET], ids=lambda gadget: gadget.name)
def test_each_column_of_rows_made_in_the_client_is_a_field_or_of_the_container(gadget: Gadget) -> None:
    fields = {field.name for field in gadget.record.fields}
    assert [column.name for column in gadget.columns if not owner_source(column.field)] == [
        column.name for column in gadget.columns if column.name in fields
    ]


def test_number_types_have_bits_and_others_none() -> None:
    types = own_data(PACKAGE / "policies/argument_types.yaml")
    wrong = [name for name, type in types.items() if ("bits" in type) != (type["group"] in ("number", "capabilities"))]
    assert not wrong


def test_a_name_stands_once_in_files_whose_values_become_keys() -> None:
    drops = own_data(PACKAGE / "flows/hubble.yaml").values()
    facts = own_data(PACKAGE / "policies/hook_facts.yaml")
    for keys in (
        [reason for drop in drops for reason in drop["reasons"].split()],
        [drop["sub_type"] for drop in drops],
        [name for names in facts["often"].values() for name in names],
        [call for calls in facts["safe"].values() for call in calls],
    ):
        assert sorted(keys) == sorted(set(keys))
