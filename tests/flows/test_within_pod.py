"""Connections that stay within a pod or a host: owners become known, or change, after the connection began."""

import io

import pytest

from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.formats import make_sink
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.run import FlowTransform
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value
from tests.messages import changes

pytestmark = pytest.mark.usefixtures("catalogue_built")
CONNECT, ACCEPT, CLOSE, SYN = range(1, 5)
ONE, OTHER = (bytes(10) + b"\xff\xff" + bytes([10, 0, 9, last]) for last in (1, 2))


def identity() -> Identity:
    """Two pods of a node, each with one cgroup."""
    found = Identity("node-0")
    containers = [
        {"id": f"c{pod}", "namespace": "default", "pod": f"p0-{pod}", "pod_uid": "", "container": "main"}
        | {"kind": "container"}
        for pod in range(2)
    ]
    found.apply(changes({"containers": containers, "cgroups": {str(pod): f"c{pod}" for pod in range(2)}}), 0.0)
    return found


def shown(before: str, accepts: int) -> list[int]:
    """How many events of each chunk are shown: a client in pod 0 connects, and pod `accepts` accepts; the server's
    address belonged to pod `before`, if not empty."""
    kind, owners, book = load_gadget("trace_tcp"), identity(), AddressBook()
    if before:
        book.saw("10.0.9.2", book.facts("default", before))
    found = []
    make = FlowTransform(FlowTable(book), FlowFilter(internal=False))
    for time, (operation, side, cgroup) in enumerate(((SYN, 1, 0), (ACCEPT, 2, accepts), (CLOSE, 1, 0))):
        ends: dict[str, Value] = {"local": ONE, "local_port": 4000, "remote": OTHER, "remote_port": 80}
        if side == 2:
            ends = {"local": OTHER, "local_port": 80, "remote": ONE, "remote_port": 4000}
        writer = RowWriter(kind.record)
        more = {"operation": operation, "initiator": side, "cgroup": cgroup, "pid": 7 + side}
        writer.add(b"", 1_000_000_000 * (time + 1), {**ends, **more})
        batch = decode(kind, "node-0", writer.take())
        batch.name_owners(owners.lookup)
        found.append(len(make.apply(Rows([batch]))))
    return found


@pytest.mark.parametrize(
    ("before", "accepts", "expected"),
    [("", 0, [1, 0, 0]), ("", 1, [1, 0, 1]), ("p0-0", 1, [0, 0, 1]), ("p0-1", 0, [1, 0, 0]), ("p0-0", 0, [0, 0, 0])],
)
def test_owners_that_change_are_compared_again(before: str, accepts: int, expected: list[int]) -> None:
    assert shown(before, accepts) == expected


@pytest.mark.parametrize("format", ["csv", "json", "table", "wide"])
def test_only_what_fails_is_shown(format: str) -> None:
    gadget, stream = load_gadget("trace_tcp"), io.StringIO()
    writer, chosen = RowWriter(gadget.record), FlowFilter(internal=False)
    for port in range(1000, 1005):
        ends: dict[str, Value] = {"local": ONE, "local_port": port, "remote": ONE, "remote_port": 80, "initiator": 1}
        writer.add(b"", port, {"operation": CONNECT, "pid": 7, **ends})
    failing: dict[str, Value] = {"local": ONE, "local_port": 2000, "remote": OTHER, "remote_port": 80, "initiator": 1}
    writer.add(b"", 3000, {"operation": CONNECT, "pid": 7, "errno": 111, **failing})
    transform = FlowTransform(FlowTable(AddressBook()), chosen)
    rows = transform.apply(Rows([decode(gadget, "node-0", writer.take())]))
    make_sink(OutputOptions(format=format), stream, None).write(rows)
    assert chosen.hidden == 5
    assert "ECONNREFUSED" in stream.getvalue().splitlines()[-1]
