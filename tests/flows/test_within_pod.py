"""Connections that stay within a pod: owners become known, or change, after the connection began."""

import pytest

from kubectl_gadget.flows import transform
from kubectl_gadget.flows.addresses import AddressBook
from kubectl_gadget.flows.ends import ACCEPT, CLOSE, SYN
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.transform import FlowTransform
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value
from tests.flows.test_plain_flows import identity_of

pytestmark = pytest.mark.usefixtures("catalogue_built")
ONE, OTHER = (bytes(10) + b"\xff\xff" + bytes([10, 0, 9, last]) for last in (1, 2))


def shown(before: str, accepts: int, least: int) -> list[int]:
    """How many events of each chunk are shown: a client in pod 0 connects, and pod `accepts` accepts; the server's
    address belonged to pod `before`, if not empty. `least`: transform.LEAST_ROWS."""
    kind, identity, book = load_gadget("trace_tcp"), identity_of(0), AddressBook()
    if before:
        book.saw("10.0.9.2", book.facts("default", before))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "LEAST_ROWS", least)
        make = FlowTransform(FlowTable(book), FlowFilter(internal=False), in_columns=True)
        for time, (operation, side, cgroup) in enumerate(((SYN, 1, 0), (ACCEPT, 2, accepts), (CLOSE, 1, 0))):
            ends: dict[str, Value] = {"local": ONE, "local_port": 4000, "remote": OTHER, "remote_port": 80}
            if side == 2:
                ends = {"local": OTHER, "local_port": 80, "remote": ONE, "remote_port": 4000}
            writer = RowWriter(kind.record)
            more = {"operation": operation, "initiator": side, "cgroup": cgroup, "pid": 7 + side}
            writer.add(b"", 1_000_000_000 * (time + 1), {**ends, **more})
            batch = decode(kind, "node-0", writer.take())
            batch.name_owners(identity.lookup)
            found.append(len(make.apply(Rows([batch]))))
    return found


@pytest.mark.parametrize(
    ("before", "accepts", "expected"),
    [("", 0, [1, 0, 0]), ("", 1, [1, 0, 1]), ("p0-0", 1, [0, 0, 1]), ("p0-1", 0, [1, 0, 0]), ("p0-0", 0, [0, 0, 0])],
)
def test_owners_that_change_are_compared_again(before: str, accepts: int, expected: list[int]) -> None:
    assert shown(before, accepts, 1) == shown(before, accepts, 1 << 30) == expected
