"""What trace open says of results that the kernel does not tell, and of opens that a program has rewritten."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.gadget_kinds import dns_flag_names, dns_rcode_name, dns_type_name, open_differences
from kubectl_gadget.rows.members import filter_members, shown
from tests.rows.records import FIELDS, OPEN, SIZE, column, record, ring

TYPES = {"errno": "gadget_known_errno", "mode": "gadget_open_differs", "padding": "gadget_known_open_flags"}
NAMES = {"mode": "differs", "padding": "opened_flags"}
"""A gadget like trace_open, whose fields are called so."""
GADGET = replace(
    OPEN,
    record=replace(
        OPEN.record,
        fields=tuple(
            replace(field, type=TYPES.get(field.name, field.type), name=NAMES.get(field.name, field.name))
            for field in FIELDS
        ),
    ),
    columns=(*(column(name) for name in ("errno", "path", "resolved", "differs", "opened_flags")),),
)
UNKNOWN = 0xFFFFFFFF


def rows(*records: bytes) -> dict[str, list[object]]:
    batch = decode(GADGET, "node-1", ring(*records))
    return {name: member.read(batch).values() for name, member in filter_members(GADGET).items()}


def with_opened(flags: int, data: bytes) -> bytes:
    return data[: SIZE - 4] + flags.to_bytes(4, "little") + data[SIZE:]


def test_a_result_that_is_not_known_is_null_and_a_question_mark() -> None:
    records = [record(errno=number) for number in (-1, 0, 2)]
    assert rows(*records)["errno"] == [None, 0, 2]
    assert rows(*records)["error"] == [None, "", "ENOENT"]
    assert shown(decode(GADGET, "node-1", ring(*records)), GADGET.column("errno")) == ["?", "0", "ENOENT"]
    assert rows(*records[1:])["error"] == ["", "ENOENT"]
    assert rows(records[0])["error"] == [None]


def test_how_a_file_is_open_is_null_where_it_was_not_examined() -> None:
    found = rows(with_opened(1, record()), with_opened(UNKNOWN, record()))
    assert found["opened_flags"] == ["O_WRONLY", None]
    assert found["opened_flags_raw"] == [1, None]
    assert found["differs"][1] is None


def test_a_row_says_what_differs() -> None:
    found = rows(with_opened(1, record(mode=1, path=b"/tmp/a", resolved=(b"tmp", b"b"))), with_opened(0, record()))
    assert found["differs"] == ["path|flags", ""]


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("/etc/passwd", "/etc/passwd"),
        ("//etc/./x/../passwd", "/etc/passwd"),
        ("/", "/"),
        ("/..", "/"),
        ("passwd", "/etc/passwd"),
        ("./etc/passwd", "/etc/passwd"),
        ("../etc/passwd", "/etc/passwd"),
        (".", "/etc"),
        ("", "/etc"),
        ("/a/b/passwd", "…/b/passwd"),
        (None, "/etc/passwd"),
        ("/etc/passwd", None),
    ],
)
def test_the_same_path_does_not_differ(written: str | None, resolved: str | None) -> None:
    assert open_differences(0, written, resolved) == ""


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("/etc/passwd", "/etc/shadow"),
        ("passwd", "/etc/shadow"),
        ("asswd", "/etc/passwd"),
        ("b/passwd", "/etc/passwd"),
        ("/a/passwd", "…/b/shadow"),
        ("/proc/self/maps", "/proc/1/maps"),
    ],
)
def test_another_path_differs(written: str, resolved: str) -> None:
    assert open_differences(1, written, resolved) == "path|flags"
    assert open_differences(0, written, resolved) == "path"


# DNS numbers by their names.


def test_types_have_their_names() -> None:
    assert [dns_type_name(number) for number in (0, 1, 28, 65, 65534)] == ["", "A", "AAAA", "HTTPS", "TYPE65534"]


def test_codes_have_their_names_and_two_are_our_own() -> None:
    numbers = (0, 2, 3, 16, -1, -2)
    names = ["NOERROR", "SERVFAIL", "NXDOMAIN", "BADVERS", "NOANSWER", "MALFORMED"]
    assert [dns_rcode_name(number) for number in numbers] == names


def test_flags_are_written_as_dig_does() -> None:
    assert dns_flag_names(0x8580) == "qr aa rd ra"
    assert dns_flag_names(0x2800) == "update"


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_number_has_some_name(number: int) -> None:
    assert dns_rcode_name(number)
    dns_type_name(number & 0xFFFF)
    dns_flag_names(number & 0xFFFF)
