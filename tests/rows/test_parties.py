"""Records of two parties: the sender and the receiver of a signal."""

from dataclasses import replace

from kubectl_gadget.gadgets.schema import Field, RecordLayout
from kubectl_gadget.rows.batch import Batch, decode, join
from kubectl_gadget.rows.columns.members import row_members, shown
from kubectl_gadget.rows.container_lookup import ContainerFilter, Identity
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.client_messages import FilterSpec
from tests.rows import records
from tests.rows.records import column

COLUMNS = (column("pod"), column("receiver_pod", field="receiver.pod"), column("receiver_kind", field="receiver.node"))
SIGNAL = replace(
    records.OPEN,
    record=RecordLayout("signal", records.SIZE, (*records.FIELDS[:16], Field("receiver", 104, 8, "gadget_cgroup"))),
    columns=COLUMNS,
)


def batch(*pairs: tuple[int, int], node: str = "node-1") -> Batch:
    """One row per sender's and receiver's cgroup, of which 7 is xwing and 8 is yard."""
    made = [records.record(cgroup=sender)[:104] + receiver.to_bytes(8, "little") for sender, receiver in pairs]
    identity = Identity(node)
    containers = [{"id": name, "namespace": space, "pod": name} for name, space in (("xwing", "a"), ("yard", "b"))]
    identity.apply(
        ContainerChanges.from_json({"containers": containers, "cgroups": {"7": "xwing", "8": "yard", "9": None}}), 0.0
    )
    decoded = decode(SIGNAL, node, records.ring(*made))
    decoded.name_owners(identity.lookup)
    return decoded


def test_a_column_of_a_second_party_has_its_names() -> None:
    rows = batch((7, 8), (8, 7), (7, 9))
    assert shown(rows, COLUMNS[0]) == ["xwing", "yard", "xwing"]
    assert shown(rows, COLUMNS[1]) == ["yard", "xwing", "-"]
    assert [member.name for member in row_members(SIGNAL)] == ["pod", "receiver_pod", "receiver_kind"]
    assert row_members(SIGNAL)[1].read(rows).values() == ["yard", "xwing", ""]


def test_selected_and_joined_rows_keep_both_parties() -> None:
    rows = join([batch((7, 8), (8, 7)).select([1]), batch((7, 9), (9, 8), node="node-2")])  # type: ignore[arg-type]
    assert shown(rows, COLUMNS[0]) == ["yard", "xwing", "-"]
    assert shown(rows, COLUMNS[1]) == ["xwing", "-", "yard"]
    assert shown(rows, COLUMNS[2]) == ["node-1", "node-2", "node-2"]


def test_a_row_is_wanted_when_one_of_its_parties_is() -> None:
    rows = batch((7, 8), (8, 7), (7, 9), (8, 9), (9, 9))
    only_a = ContainerFilter(FilterSpec(namespaces=("a",)))
    assert rows.judged(lambda _node: only_a.wanted).tolist() == [1, 1, 1, 0, 0]


def test_an_absent_receiver_makes_no_row_wanted() -> None:
    assert batch((9, 0), (7, 0)).judged(lambda _node: ContainerFilter(FilterSpec()).wanted).tolist() == [0, 1]
