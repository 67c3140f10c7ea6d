"""From records of trace process and trace fileuse to what happened, with the layouts that were built."""

import struct

import pytest

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.observe.decoders import file_events, process_events
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.wire.policy_events import ExecId

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]
PROCESS = struct.pack("<QI4x", 1000, 7)


def record(name: str, **values: Value) -> bytes:
    writer = RowWriter(load_gadget(name).record)
    writer.add(b"", 5, values)
    return writer.take()


def test_a_file_has_the_process_the_bytes_and_the_credentials_of_its_record() -> None:
    written = record(
        "trace_fileuse", exec_id=PROCESS, path=["passwd", "etc"], bytes=12, file_id=3, inode=4, tid=8, euid=9, fsgid=10
    )
    (event,) = file_events(decode(load_gadget("trace_fileuse"), "node", written))
    assert (event.process, event.tid, event.file_id, event.inode) == (ExecId(1000, 7), 8, 3, 4)
    assert event.bytes == 12
    assert event.credentials is not None
    assert (event.credentials.euid, event.credentials.fsgid) == (9, 10)


def test_a_process_has_known_values_and_null_for_unknown_ones() -> None:
    written = record(
        "trace_process",
        exec_id=PROCESS,
        tid=7,
        auid=0xFFFFFFFF,
        ns_host=0,
        ns_net=11,
        inode=4,
        links=2,
        args="sh\0-c\0",
    )
    (event,) = process_events(decode(load_gadget("trace_process"), "node", written))
    assert (event.process, event.parent, event.tid) == (ExecId(1000, 7), None, 7)
    assert (event.auid, event.host_namespaces, event.namespaces["net"]) == (None, 0, 11)
    assert (event.inode, event.links, event.args) == (4, 2, ("sh", "-c"))


@pytest.mark.parametrize(("name", "read"), [("trace_fileuse", file_events), ("trace_process", process_events)])
def test_a_record_without_a_process_is_refused(name: str, read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"a process|no process"):
        read(decode(load_gadget(name), "node", record(name)))
