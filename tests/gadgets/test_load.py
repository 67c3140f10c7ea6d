"""Reading what the build made."""

import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.load import ARCHITECTURES, load_gadget, load_index, object_bytes, read_gadget
from kubectl_gadget.gadgets.schema import owner_source
from kubectl_gadget.rows.members import kind_of

pytestmark = pytest.mark.usefixtures("catalogue_built")


def test_both_gadgets_are_in_the_index() -> None:
    assert {"trace_open", "trace_exec"} <= {entry.name for entry in load_index()}


def test_every_gadget_has_objects_for_both_architectures() -> None:
    for entry in load_index():
        for architecture in ARCHITECTURES:
            assert object_bytes(entry.name, architecture).startswith(b"\x7fELF")


def test_every_gadget_has_three_examples_at_least() -> None:
    for entry in load_index():
        examples = load_gadget(entry.name).about.examples
        assert len(examples) >= 3, entry.name
        assert all(example.command.startswith(f"kubectl gadget {' '.join(entry.command)}") for example in examples)


def test_every_column_can_be_read() -> None:
    for entry in load_index():
        gadget = load_gadget(entry.name)
        for column in gadget.columns:
            if owner_source(column.field) is None:
                assert kind_of(gadget.record.field(column.field)) is not None


def test_what_is_done_can_be_chosen_by_the_words_that_there_are() -> None:
    for entry in load_index():
        for parameter in load_gadget(entry.name).parameters:
            if parameter.variable == "gadget_filter_operation":
                assert parameter.choices, (entry.name, parameter.name)


def test_what_a_call_failed_with_has_one_title_in_all_gadgets() -> None:
    columns = [(entry.name, column) for entry in load_index() for column in load_gadget(entry.name).columns]
    titles = {name: column.title for name, column in columns if column.name == "errno"}
    # Whether a capability is there is no failure.
    assert titles.pop("trace_capabilities") == "VERDICT"
    assert set(titles.values()) == {"ERR"}


def test_trace_open_has_the_columns_that_are_promised() -> None:
    columns = load_gadget("trace_open").columns
    assert [column.title for column in columns if column.show == "default"] == [
        *("NODE", "NAMESPACE", "POD", "CONTAINER", "PID", "COMM", "FD", "ERR", "PATH")
    ]
    wide = {column.name for column in columns if column.show == "wide"}
    assert {"timestamp", "uid", "tid", "ppid", "flags", "mode", "resolved"} <= wide


def test_trace_exec_has_the_columns_that_are_promised() -> None:
    columns = load_gadget("trace_exec").columns
    assert [column.title for column in columns if column.show == "default"] == [
        *("NODE", "NAMESPACE", "POD", "CONTAINER", "PID", "PPID", "COMM", "ERR", "ARGS")
    ]
    assert {"uid", "cwd", "exe"} <= {column.name for column in columns if column.show == "wide"}


def test_an_unknown_gadget_is_reported_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no gadget 'trace_opne'") as error:
        load_gadget("trace_opne")
    assert "trace_open" in str(error.value.remedy)


def test_an_architecture_that_was_not_built_is_reported() -> None:
    with pytest.raises(GadgetError, match="trace_open was not built for riscv64, only for aarch64, x86_64"):
        object_bytes("trace_open", "riscv64")


def test_a_tree_that_was_not_built_is_reported(tmp_path: Path) -> None:
    with pytest.raises(GadgetError, match="the gadgets were not built") as error:
        load_index(tmp_path)
    assert "make setup" in str(error.value.remedy)


def test_a_schema_of_another_version_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "trace_open.json"
    path.write_text('{"name": "trace_open"}')
    with pytest.raises(GadgetError, match="built by another version"):
        read_gadget(path)


def test_a_gadget_survives_being_written_and_read() -> None:
    gadget = load_gadget("trace_open")
    assert type(gadget).from_json(gadget.to_json()) == gadget


def test_the_index_is_read_without_anything_heavy() -> None:
    code = (
        "import sys; from kubectl_gadget.gadgets import load_index; load_index();"
        "print([name for name in ('numpy', 'yaml', 'subprocess', 'kubernetes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
