"""Rows as JSON and as cells."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.row_texts import MemberRows, cells, object_names, pod_keys
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.agent_messages import ContainerChanges
from tests.rows.records import OPEN, record, ring


def batch(*records: bytes, node: str = "node-1") -> Batch:
    """A batch whose cgroup 7 is default/xwing and whose cgroup 8 is a container of Docker."""
    made = decode(OPEN, node, ring(*records))
    identity = Identity(node)
    pod = {"id": "c", "namespace": "default", "pod": "xwing", "container": "ship", "image": "i%s", "kind": "container"}
    docker = {"id": "d", "container": "db", "kind": "container"}
    identity.apply(
        ContainerChanges.from_json({"containers": [pod, docker], "cgroups": {"7": "c", "8": "d", "9": None}}), 0.0
    )
    made.owners = identity.lookup(made.cgroups())
    return made


def lines(*records: bytes) -> list[dict[str, object]]:
    """The JSON rows."""
    return [json.loads(line) for line in MemberRows().lines(Rows([batch(*records)]))]


def test_a_json_row_is_whole_and_in_order() -> None:
    line = MemberRows().lines(Rows([batch(record(cgroup=7, args=[b"ls"], errno=2, fd=-1))]))[0]
    assert line == (
        '{"timestamp":"1970-01-01T00:00:00.000000000Z","node":"node-1","namespace":"default","pod":"xwing",'
        '"container":"ship","pid":1,"comm":"vi","fd":-1,"errno":2,"error":"ENOENT","path":"/etc/passwd","uid":0,'
        '"flags":"O_RDONLY","flags_raw":0,"mode":"0000","mode_raw":0,"resolved":null,"args":["ls"],"tid":1,'
        '"parent_comm":"sh","image":"i%s"}'
    )


def test_optional_members_stand_only_in_the_rows_that_have_them() -> None:
    rows = lines(record(), record(path=b"/\xff", path_cut=True), record(comm=b"\xe4"))
    assert "path_cut" not in rows[0]
    assert (rows[1]["path_cut"], rows[1]["path_bytes"]) == (True, "L/8=")
    assert "path_cut" not in rows[2]
    assert rows[2]["comm_bytes"] == "5A=="


@given(st.lists(st.tuples(st.binary(max_size=15), st.binary(max_size=40) | st.none()), min_size=1, max_size=5))
def test_json_is_always_one_valid_line_and_lossless(rows: list[tuple[bytes, bytes | None]]) -> None:
    made = Rows([batch(*(record(comm=comm, path=path, args=[comm]) for comm, path in rows))])
    written = MemberRows().lines(made)
    assert len(written) == len(rows)
    assert [json.loads(line) for line in written] == MemberRows().records(made)
    for line, (comm, path) in zip(written, rows, strict=True):
        line.encode("utf-8")
        assert line.isprintable()
        row = json.loads(line)
        assert exact(row, "comm") == comm.partition(b"\0")[0]
        assert exact(row, "path") == path


def exact(row: dict[str, str], name: str) -> bytes | None:
    """The bytes of a text in a JSON row."""
    import base64

    if f"{name}_bytes" in row:
        return base64.b64decode(row[f"{name}_bytes"])
    return None if row[name] is None else row[name].encode()


def test_columns_limit_the_members() -> None:
    rows = Rows([batch(record(pid=7))])
    assert MemberRows(("errno", "pid")).lines(rows) == ['{"errno":0,"error":"","pid":7}']
    assert MemberRows(("node",)).lines(rows) == ['{"node":"node-1"}']


def test_the_gadgets_name_comes_first_when_there_are_several() -> None:
    rows = Rows([batch(record())])
    assert MemberRows(("pid",), event=True).lines(rows) == ['{"event":"open","pid":1}']
    assert MemberRows(("pid",), event=True).records(rows) == [{"event": "open", "pid": 1}]


def test_rows_of_several_batches_keep_their_order() -> None:
    import numpy as np

    rows = Rows([batch(record(pid=1), record(pid=3)), batch(record(pid=2), node="node-2")], np.array([0, 2, 1]))
    assert cells(rows, "pid") == ["1", "2", "3"]
    assert cells(rows, "node") == ["node-1", "node-2", "node-1"]


def test_names_that_do_not_exist_are_dashes_in_cells() -> None:
    rows = Rows([batch(record(cgroup=7), record(cgroup=8), record(cgroup=9), record(cgroup=1))])
    assert cells(rows, "pod") == ["xwing", "-", "-", "-"]
    assert cells(rows, "container") == ["ship", "db", "-", "-"]
    assert pod_keys(rows) == ["default/xwing", "", "", ""]
    assert object_names(rows) == ["pod/xwing", "container/db", "node/node-1", "node/node-1"]


def test_a_column_that_the_gadget_has_not_is_empty() -> None:
    other = replace(OPEN, columns=OPEN.columns[:2])
    made = decode(other, "node-1", ring(record()))
    assert cells(Rows([made]), "path") == [""]
    assert cells(Rows([made]), "event") == ["open"]
