"""Which columns are shown."""

from dataclasses import replace

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.shown_columns import choose_columns, column_names, details, headings, member_names
from tests.rows.records import OPEN, column

EXEC = replace(OPEN, name="trace_exec", columns=(column("node"), column("pid"), column("ppid"), column("args")))
DEFAULT = ["node", "namespace", "pod", "container", "pid", "comm", "fd", "errno", "path"]


def test_a_table_has_the_default_columns_in_their_order() -> None:
    assert choose_columns([OPEN], (), "default") == DEFAULT


def test_wide_has_more_and_json_has_all() -> None:
    assert choose_columns([OPEN], (), "wide")[len(DEFAULT) :][:2] == ["timestamp", "uid"]
    assert "tid" not in choose_columns([OPEN], (), "wide")
    assert len(choose_columns([OPEN], (), "json")) == len(OPEN.columns)


def test_columns_can_be_chosen_added_and_taken_away() -> None:
    assert choose_columns([OPEN], ("path", "pid"), "default") == ["path", "pid"]
    assert choose_columns([OPEN], ("+uid", "-node", "-namespace"), "default") == [*DEFAULT[2:], "uid"]
    assert choose_columns([OPEN], ("+pod_uid",), "default")[-1] == "pod_uid"


def test_a_column_that_does_not_exist_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no column 'pth'") as caught:
        choose_columns([OPEN], ("pid", "pth"), "default")
    assert caught.value.remedy == "path?"
    with pytest.raises(UsageError, match="leaves no column"):
        choose_columns([OPEN], ("pid", "-pid"), "default")


def test_several_gadgets_share_one_table_with_an_event_column() -> None:
    names = choose_columns([OPEN, EXEC], (), "default")
    assert names == ["node", "pid", "details"]
    titles = [heading.title for heading in headings([OPEN, EXEC], names)]
    assert (titles[0], titles[-1]) == ("EVENT", "DETAILS")
    assert [item.name for item in details(OPEN, [OPEN, EXEC])] == [n for n in DEFAULT if n not in ("node", "pid")]
    assert [item.name for item in details(EXEC, [OPEN, EXEC])] == ["ppid", "args"]
    assert headings([OPEN], names)[0].title == "NODE"


def test_a_chosen_column_brings_its_members() -> None:
    assert member_names(OPEN, ["errno", "path"]) == ["errno", "error", "path", "path_cut", "path_bytes"]


def test_headings_are_taken_in_any_case() -> None:
    assert column_names([OPEN], ("PID", "Pod", "err", "path", "+UID", "-NODE")) == (
        "pid", "pod", "errno", "path", "+uid", "-node",
    )  # fmt: skip
    assert column_names([OPEN], ("RUNTIME", "nope", "-Errno")) == ("runtime", "nope", "-errno")


def test_a_heading_of_two_columns_names_both() -> None:
    ends = (column("local_port", "PORT"), column("remote_port", "PORT"), column("port_range", "PORTS"))
    gadget = replace(OPEN, columns=ends)
    assert column_names([gadget], ("local_port", "PORTS")) == ("local_port", "port_range")
    with pytest.raises(UsageError, match="port is the heading of several columns") as caught:
        column_names([gadget], ("port",))
    assert caught.value.remedy == "local_port or remote_port"
