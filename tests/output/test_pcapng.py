"""pcap-ng: libpcap reads what was written, and each packet has its process."""

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Field, Gadget, RecordLayout
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter
from tests.messages import changes
from tests.output import libpcap
from tests.output.libpcap import COOKED
from tests.rows.records import FIELDS, OPEN, column

OWN = (
    Field("direction", 80, 4, "direction", values=((1, "in"), (2, "out"))),
    Field("length", 84, 4, "__u32"),
    Field("packet", 88, 4, "gadget_data"),
)
DUMP: Gadget = replace(
    OPEN, name="dump", record=RecordLayout("dump", 96, FIELDS[:12] + OWN), columns=(column("packet"),)
)
PACKET = b"\x45\0\0\x1c" + b"\xff\0" * 12
WALL = 1_700_000_000_123_456_789


def batch(*packets: bytes, node: str = "node-1", comm: bytes = b"nginx", more: int = 0, cgroup: int = 7) -> Batch:
    """One row for each packet, a second apart; `more` bytes of each were not kept."""
    writer = RowWriter(DUMP.record)
    for number, packet in enumerate(packets):
        length = len(packet) + more
        values = {"cgroup": cgroup, "pid": 42, "comm": comm, "direction": 2, "length": length, "packet": packet}
        writer.add(b"", number * 10**9, values)
    made = decode(DUMP, node, writer.take())
    made.clock_offset_ns = WALL
    identity = Identity(node)
    pod = {"id": "c", "namespace": "default", "pod": "xwing", "container": "ship", "kind": "container"}
    identity.apply(changes({"containers": [pod], "cgroups": {"7": "c", "8": None}}), 0.0)
    made.name_owners(identity.lookup)
    return made


def written(*batches: Batch) -> bytes:
    stream = io.TextIOWrapper(io.BytesIO())
    sink = make_sink(OutputOptions("pcap-ng"), [DUMP], stream)
    sink.start()
    for one in batches:
        sink.write(Rows([one]))
    sink.close()
    found: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return found


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert data[length - 4 : length] == data[4:8]
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while True:
        code, length = struct.unpack_from("<HH", data)
        if not code:
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]


def packet_options(data: bytes) -> list[dict[int, bytes]]:
    return [options(body[20 + COOKED + (len(PACKET) + 3) // 4 * 4 :]) for kind, body in blocks(data) if kind == 6]


def test_libpcap_reads_packets_and_times_to_the_nanosecond(tmp_path: Path) -> None:
    path = tmp_path / "packets.pcapng"
    path.write_bytes(written(batch(PACKET, PACKET[:21], more=5)))
    told = libpcap.read(path)
    assert [packet.time_ns for packet in told] == [WALL, WALL + 10**9]
    assert [packet.data[COOKED:] for packet in told] == [PACKET, PACKET[:21]]
    assert [packet.length - COOKED for packet in told] == [len(PACKET) + 5, 21 + 5]
    assert told[0].data[:COOKED] == b"\x08\0" + bytes(6) + b"\xff\xfe" + b"\4" + bytes(9)


def test_each_packet_says_whose_it_is_and_which_way_it_went() -> None:
    (told,) = packet_options(written(batch(PACKET)))
    assert told[1] == b"nginx[42] default/xwing/ship"
    assert struct.unpack("<I", told[2]) == (2,)


def test_a_process_of_the_host_has_no_pod_and_its_name_does_no_harm() -> None:
    (told,) = packet_options(written(batch(PACKET, comm=b"\x1b[2J\xff\n", cgroup=8)))
    assert told[1].decode() == "\\x1b[2J\ufffd\\n[42]"


def test_every_node_is_an_interface_of_its_own(tmp_path: Path) -> None:
    data = written(batch(PACKET), batch(PACKET, node="node-2"), batch(PACKET))
    interfaces = [options(body[8:]) for kind, body in blocks(data) if kind == 1]
    assert [interface[2] for interface in interfaces] == [b"node-1", b"node-2"]
    assert [interface[9] for interface in interfaces] == [b"\x09"] * 2
    assert [struct.unpack_from("<I", body) for kind, body in blocks(data) if kind == 6] == [(0,), (1,), (0,)]
    path = tmp_path / "packets.pcapng"
    path.write_bytes(data)
    assert len(libpcap.read(path)) == 3


def test_a_file_without_packets_is_a_file() -> None:
    assert [kind for kind, _ in blocks(written())] == [0x0A0D0D0A]


def test_gadgets_without_packets_and_terminals_are_refused() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    with pytest.raises(UsageError, match="packets"):
        make_sink(OutputOptions("pcap-ng"), [OPEN], stream)
    with pytest.raises(UsageError, match="terminal"):
        make_sink(OutputOptions("pcap-ng"), [DUMP], stream, terminal=Terminal(lambda: 80))
