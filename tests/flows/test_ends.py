"""Rows that are read a column at a time say what they say as JSON."""

import dataclasses

import numpy as np
import pytest

from kubectl_gadget.flows.ends import GADGETS, AddressBook, EndReader, FlowEnd
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.rows import events_of
from kubectl_gadget.flows.run import FlowTransform
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.kube.addresses import Addresses, PodFacts, is_shared
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch, decode, join
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value
from tests.flows.rows import end_of
from tests.messages import changes

UNKNOWN = (1 << 64) - 1
V4 = bytes(10) + b"\xff\xff"
V6 = bytes.fromhex("20010db8000000000000000000000100")
CONTAINER = {"id": "c", "namespace": "default", "pod": "web", "pod_uid": "u", "container": "main", "kind": "container"}


def batch_of(gadget: str, node: str) -> Batch:
    """A row for each of some sorts of values."""
    kind = load_gadget(gadget)
    writer = RowWriter(kind.record)
    names = {field.name for field in kind.record.fields}
    numbers = ("duration", "rtt", "sent", "received")
    for row in range(40):
        values: dict[str, Value] = {
            "cgroup": (7, 8, 9)[row % 3],
            "pid": 0 if row % 5 == 4 else 100 + row % 4,
            "comm": b"" if row % 5 == 4 else (b"curl", b"a\xff\x1bb", "naïve".encode())[row % 3],
            "exec_id": bytes(16) if row % 2 else (row + 1).to_bytes(8, "little") + bytes([row, 0, 0, 0]) + bytes(4),
            "operation": 1 + row % 6 if gadget == "trace_tcp" else 1 + row % 3,
            "errno": 111 if row % 7 == 0 else 0,
            "local": V6 if row % 4 == 0 else V4 + bytes([10, 0, 0, row]),
            "remote": b"\xff" * 16 if row == 3 else V4 + bytes([127, 0, 0, 1]),
            "local_port": 40000 + row,
            "remote_port": 80,
            "id": row,
            "initiator": row % 3,
            "end": row % 5,
            "user_pid": row % 2 * 55,
            "user_comm": b"child" if row % 2 else b"",
            **{name: UNKNOWN if row % 2 else row * 1000 for name in numbers},
            **dict.fromkeys(("sent_segments", "received_segments", "sent_packets", "received_packets"), row),
            "retransmits": row % 3,
            "family": (2, 10, 17, 44)[row % 4] if gadget == "trace_udp" else 2,
        }
        writer.add(b"", 1_000_000_000 + row, {name: value for name, value in values.items() if name in names})
    batch = decode(kind, node, writer.take())
    identity = Identity(node)
    identity.apply(changes({"containers": [CONTAINER], "cgroups": {"7": "c", "8": None}}), 0.0)
    batch.name_owners(identity.lookup)
    return batch


def plain(end: FlowEnd) -> tuple[object, ...]:
    return (*end._replace(who=None), dataclasses.astuple(end.who))  # type: ignore[arg-type]


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize("gadget", sorted(GADGETS))
def test_columns_and_json_say_the_same(gadget: str) -> None:
    for batch in (batch_of(gadget, "node-1"), join([batch_of(gadget, "node-1"), batch_of(gadget, "node-2")])):
        reader = EndReader(AddressBook())
        rows = MemberRows(event=True).records(Rows([batch]))
        uids = {"web": "u"}
        as_json = [end_of(reader, row | {"pod_uid": uids.get(row["pod"], "")}) for row in rows]
        as_columns = reader.read(batch)
        assert list(map(plain, as_columns)) == list(map(plain, as_json))
        assert all(end.local != "" for end in as_columns)


@pytest.mark.usefixtures("catalogue_built")
def test_rows_of_one_process_share_whose_they_are_until_the_cluster_says_more() -> None:
    book = AddressBook()
    reader = EndReader(book)
    batch = batch_of("trace_tcp", "node-1")
    batch = batch.select(np.array([0, 12, 24, 36]) // 12 * 12)
    before = reader.read(batch)
    assert before[0].who.pod == PodFacts("default", "web")
    again = reader.read(batch)
    assert all(one.who is other.who for one, other in zip(before, again, strict=True))
    facts = PodFacts("default", "web", ("app=web",))
    book.cluster = Addresses(by_name={("default", "web"): facts})
    assert reader.read(batch)[0].who.pod is facts


@pytest.mark.usefixtures("catalogue_built")
def test_what_late_rows_report_is_late() -> None:
    batch = batch_of("trace_tcp", "node-1")
    batch.late = np.arange(len(batch)) < 12
    transform = FlowTransform(FlowTable(AddressBook()), FlowFilter())
    marks = [event.late for event in transform.apply(Rows([batch])).collect(events_of)]
    assert set(marks) == {True, False}
    assert marks == sorted(marks, reverse=True)


@pytest.mark.parametrize(
    ("address", "is_of_many"),
    [
        *dict.fromkeys(
            ("127.0.0.1", "127.8.9.1", "169.254.0.3", "224.0.0.251", "239.1.2.3", "0.0.0.0", ""), True
        ).items(),
        *dict.fromkeys(("::1", "::", "fe80::1", "ff02::fb", "::ffff:127.0.0.1"), True).items(),
        *dict.fromkeys(
            ("10.0.0.1", "169.253.0.1", "0.0.0.1", "240.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"), False
        ).items(),
    ],
)
def test_addresses_that_many_have_are_known(address: str, is_of_many: bool) -> None:
    assert is_shared(address) == is_of_many
