"""A gadget's YAML: how it is read, and how exact its errors are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.gadget_yaml import GADGET, other_columns, read_description, shared_parameters
from kubectl_gadget.yaml_files import SchemaField

SHARED_FIRST = ["timestamp", "node", "namespace", "pod", "container", "pid", "comm"]


def gadget(**changes: Any) -> dict[str, Any]:
    """A small gadget that is right; None takes a key away."""
    value = {
        "command": "trace something",
        "group": "files",
        "summary": "Something",
        "record": "trace_something",
        "programs": [{"any_of": [["a", "b"], ["c"]]}],
        "columns": ["pid", {"name": "what", "description": "what it was"}],
        "examples": [{"command": "kubectl gadget trace something", "description": "all"}],
        **changes,
    }
    return {key: item for key, item in value.items() if item is not None}


def write(directory: Path, value: object) -> Path:
    path = directory / "trace_something.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def complaint(directory: Path, value: object) -> str:
    path = write(directory, value)
    with pytest.raises(UsageError) as error:
        read_description(path)
    place, _, text = str(error.value).partition(": ")
    assert re.fullmatch(rf"{re.escape(str(path))}:\d+:\d+", place)
    return text


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    read = read_description(write(tmp_path, gadget()))
    assert (read.name, read.command) == ("trace_something", ("trace", "something"))
    assert read.agent.programs[0].any_of == (("a", "b"), ("c",))


def test_programs_may_hang_on_a_parameter_that_is_true(tmp_path: Path) -> None:
    parameters = [{"name": "reports", "type": "bool", "description": "more"}]
    programs = [{"any_of": [["a"]], "when": {"reports": True}}]
    (choice,) = read_description(write(tmp_path, gadget(programs=programs, parameters=parameters))).agent.programs
    assert [choice.is_wanted({"reports": value}) for value in (True, False)] == [True, False]


def test_programs_may_hang_on_a_word_of_a_parameter(tmp_path: Path) -> None:
    programs = [{"any_of": [["a"]], "when": {"hook": "open"}}, {"any_of": [["b"]]}]
    parameters = [{"name": "hook", "type": "string", "description": "which", "default": "open,close"}]
    read = read_description(write(tmp_path, gadget(programs=programs, parameters=parameters)))
    wanted = {
        words: [choice.is_wanted({"hook": words}) for choice in read.agent.programs]
        for words in ("open", "close, open", "all", "close", "opened")
    }
    assert wanted == {
        "open": [True, True],
        "close, open": [True, True],
        "all": [True, True],
        "close": [False, True],
        "opened": [False, True],
    }


def test_columns_of_every_gadget_follow_those_that_are_named(tmp_path: Path) -> None:
    read = read_description(write(tmp_path, gadget()))
    others = [column.name for column in other_columns(read, ())]
    assert ([column.name for column in read.columns], others[0]) == (["pid", "what"], "timestamp")
    assert set(SHARED_FIRST) < {"pid", *others}


def test_only_columns_that_are_named_are_in_the_default_table(tmp_path: Path) -> None:
    read = read_description(write(tmp_path, gadget()))
    assert {column.show for column in read.columns} == {"default"}
    assert "default" not in {column.show for column in other_columns(read, ())}


def test_a_total_has_only_the_columns_of_every_gadget_whose_fields_it_has(tmp_path: Path) -> None:
    read = read_description(write(tmp_path, gadget(kind="top")))
    assert [column.name for column in other_columns(read, ["comm"])] == ["comm"]


def test_a_column_of_every_gadget_may_be_shown_otherwise(tmp_path: Path) -> None:
    column = {"name": "ppid", "show": "default", "width": 9}
    (ppid, *_) = read_description(write(tmp_path, gadget(columns=[column]))).columns
    assert (ppid.show, ppid.width, ppid.align, ppid.title) == ("default", 9, "right", "PPID")
    assert ppid.description


def test_a_column_is_titled_by_its_name(tmp_path: Path) -> None:
    column = {"name": "two_words", "description": "x", "field": "other"}
    (read, *_) = read_description(write(tmp_path, gadget(columns=[column]))).columns
    assert (read.title, read.field) == ("TWO WORDS", "other")


def test_every_gadget_can_be_filtered_by_pid_comm_and_uid_and_by_error_and_address_where_it_has_them() -> None:
    assert [(item.name, item.column, item.test) for item in shared_parameters()] == [
        ("pid", "pid", "equal"),
        ("descendants", None, None),
        *((name, name, "equal") for name in ("comm", "uid")),
        ("runtime", None, None),
        ("errno", "errno", "equal"),
        ("address", None, None),
    ]


def test_a_duration_has_a_unit_in_which_its_default_counts(tmp_path: Path) -> None:
    parameter = {"name": "min", "type": "duration", "unit": "us", "default": 10, "description": "d", "variable": "v"}
    (read,) = read_description(write(tmp_path, gadget(parameters=[parameter]))).parameters
    assert (read.type, read.unit, read.default) == ("duration", "us", 10)


COLUMN = {"name": "x", "description": "d"}
PARAMETER = {"name": "p", "type": "bool", "description": "d", "variable": "v"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": None}, "lacks command"),
        ({"summary": ""}, "summary is empty"),
        ({"summary": 7}, "summary must be a text, not 7: write it in quotes"),
        ({"colums": []}, "colums is not known; did you mean columns?"),
        ({"columns": "pid"}, "columns must be a list, not 'pid'"),
        ({"columns": [7]}, "columns[0] must be a mapping, not '7'"),
        ({"columns": ["pid", "what"]}, "columns[1].name what is not a column of every gadget; it needs a description"),
        ({"columns": ["pid", "pid"]}, "columns[1].name is defined twice: pid"),
        ({"columns": [{"name": "x"}]}, "columns[0].name x is not a column of every gadget; it needs a description"),
        ({"columns": [{"name": "pid", "width": True}]}, "columns[0].width must be a whole number, not true"),
        ({"columns": [{"name": "pid", "width": 0}]}, "columns[0].width must be 1 to 200, not 0"),
        (
            {"columns": [{"name": "pid", "show": "no"}]},
            "columns[0].show 'no' is not known; it is one of default, wide",
        ),
        ({"columns": [{"name": "pid", "show": False}]}, "columns[0].show must be a text, not false"),
        ({"columns": [COLUMN | {"values": [1]}]}, "columns[0].values must be a mapping, not a list"),
        ({"columns": [COLUMN | {"values": {}}]}, "columns[0].values is empty"),
        ({"columns": [COLUMN | {"values": {1: True}}]}, "columns[0].values must map numbers to names, such as"),
        ({"columns": [COLUMN | {"flags": {"1": "a"}}]}, "columns[0].flags must map numbers to names, such as"),
        ({"columns": [COLUMN | {"flags": {True: "a"}}]}, "columns[0].flags must map numbers to names, such as"),
        (
            {"columns": [COLUMN | {"values": {1: "a"}, "flags": {1: "b"}}]},
            "columns[0].flags cannot be used with",
        ),
        ({"programs": [{"any_of": ["a"]}]}, "programs[0].any_of[0] must be a list, not 'a'"),
        ({"programs": [{"any_of": [[]]}]}, "programs[0].any_of must be a list of lists of programs"),
        ({"programs": [{"any_of": [["a"]], "optional": True}]}, "programs[0].purpose is missing"),
        ({"programs": [{"any_of": [["a"]], "when": {"hook": 1}}]}, "programs[0].when must name one parameter"),
        ({"parameters": [PARAMETER | {"type": "duration"}]}, "parameters[0].unit is missing"),
        ({"parameters": [PARAMETER | {"unit": "ms"}]}, "parameters[0].unit is only for durations"),
        ({"parameters": [PARAMETER | {"minimum": 1}]}, "parameters[0].minimum is only for numbers and durations"),
        (
            {"parameters": [PARAMETER | {"type": "float"}]},
            "parameters[0].type 'float' is not known; it is one of bool, int",
        ),
        ({"parameters": [PARAMETER | {"type": None}]}, "parameters[0] lacks type"),
        ({"parameters": [PARAMETER | {"default": 1}]}, "parameters[0].default must be true or false, not 1"),
        ({"parameters": [PARAMETER | {"test": "equal"}]}, "parameters[0].column is missing: column and test"),
        ({"examples": []}, "examples is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert complaint(tmp_path, gadget(**changes)).startswith(said)


def test_all_that_is_wrong_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "trace_something.yaml"
    text = "command: trace something\ngroup: files\nsumary: Something\nrecord: no\n"
    path.write_text(f"{text}columns:\n- {{name: x, width: 0755}}\nexamples: []\n")
    with pytest.raises(UsageError) as error:
        read_description(path)
    assert [line.strip() for line in str(error.value).splitlines()] == [
        f"{path}:1:1: lacks summary",
        f"{path}:3:1: sumary is not known; did you mean summary?",
        f"{path}:4:9: record must be a text, not no: write it in quotes",
        f"{path}:6:20: columns[0].width must be a whole number, not 0755",
    ]


def test_every_field_is_described_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "writing-gadgets.md").read_text()

    def names(fields: tuple[SchemaField, ...]) -> list[str]:
        return [name for field in fields for name in (field.name, *names(field.fields))]

    assert [name for name in names(GADGET.fields) if f"`{name}`" not in guide and f"{name}:" not in guide] == []


def test_a_list_is_not_a_gadget(tmp_path: Path) -> None:
    assert complaint(tmp_path, []) == "must be a mapping, not a list"


def test_broken_yaml_is_reported_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("command: [trace\nopen")
    with pytest.raises(UsageError, match=r"broken\.yaml:3:1: is not valid YAML: .*line 1"):
        read_description(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_description(tmp_path / "none.yaml")
