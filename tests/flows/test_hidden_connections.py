"""A chunk of rows of which no connection in columns is shown, but an event of another row."""

import io

import pytest

from kubectl_gadget.flows import transform
from kubectl_gadget.flows.addresses import AddressBook
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow_formats import IN_COLUMNS
from kubectl_gadget.flows.flow_sink import make_flow_sink
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value

pytestmark = pytest.mark.usefixtures("catalogue_built")
OWN, OTHER = (bytes(10) + b"\xff\xff" + address for address in (b"\x0a\0\0\1", b"\x0a\0\0\2"))


@pytest.mark.parametrize("format", sorted(IN_COLUMNS))
def test_only_what_fails_is_shown(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(transform, "LEAST_ROWS", 1)
    gadget, stream = load_gadget("trace_tcp"), io.StringIO()
    writer, chosen = RowWriter(gadget.record), FlowFilter(internal=False)
    for port in range(1000, 1005):
        ends: dict[str, Value] = {"local": OWN, "local_port": port, "remote": OWN, "remote_port": 80, "initiator": 1}
        writer.add(b"", port, {"operation": 1, "pid": 7, **ends})
    failing: dict[str, Value] = {"local": OWN, "local_port": 2000, "remote": OTHER, "remote_port": 80, "initiator": 1}
    writer.add(b"", 3000, {"operation": 1, "pid": 7, "errno": 111, **failing})
    table = FlowTable(AddressBook())
    sink = make_flow_sink(OutputOptions(format=format), table, stream, None, chosen)
    sink.write(Rows([decode(gadget, "node-0", writer.take())]))
    assert chosen.hidden == 5
    assert table.plain.size
    assert "ECONNREFUSED" in stream.getvalue().splitlines()[-1]
