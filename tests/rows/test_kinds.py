"""Paths that start from a directory: shown as one, with what the caller wrote beside it."""

from dataclasses import replace

import pytest

from kubectl_gadget.gadgets.schema import Field, RecordLayout
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.members import row_members, shown
from tests.rows import records
from tests.rows.records import column

AT = replace(
    records.OPEN,
    record=RecordLayout(
        "at",
        records.SIZE,
        (
            *records.FIELDS[:16],
            Field("path", 96, 4, "gadget_path_at"),
            Field("path_base", 100, 4, "gadget_path"),
        ),
    ),
    columns=(column("path"),),
)


def batch(path: bytes | None, base: list[bytes] | None, cut: bool = False) -> Batch:
    return decode(AT, "node", records.ring(records.record(path=path, path_cut=cut, resolved=base)))


@pytest.mark.parametrize(
    ("path", "base", "joined"),
    [
        (b"/etc/passwd", None, "/etc/passwd"),
        (b"passwd", [b"etc"], "/etc/passwd"),
        (b"../x", [b"a", b"b"], "/a/b/../x"),
        (b"x", [], "/x"),
        (b"", [b"a", b"b"], "/a/b"),
        (b"x", None, "x"),
        (None, [b"a"], None),
    ],
)
def test_a_relative_path_is_completed(path: bytes | None, base: list[bytes] | None, joined: str | None) -> None:
    rows = batch(path, base)
    values = {member.name: member.read(rows).values()[0] for member in row_members(AT)}
    assert values["path"] == joined
    assert values["path_written"] == (None if path is None else path.decode())
    assert shown(rows, AT.columns[0]) == [joined or "-"]


def test_a_path_that_was_cut_says_so() -> None:
    assert shown(batch(b"x" * 5, [b"a"], cut=True), AT.columns[0]) == ["/a/xxxxx…"]
