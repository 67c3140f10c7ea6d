"""Packets as a pcap-ng file (draft-ietf-opsawg-pcapng): times in ns, the process in each packet's comment.

Every node is its own interface. The output is binary, so it needs the binary stream below the text stream, and must not
go to a terminal.
"""

import struct
from collections.abc import Sequence
from typing import TextIO

from kubectl_gadget import __version__
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import owner_texts
from kubectl_gadget.rows.rows import Rows

_DATA = "gadget_data"
_COOKED = 276
"""LINKTYPE_LINUX_SLL2: in front of the IP header are its protocol, the interface's index, type and address (all three
unknown here), and the direction. LINKTYPE_RAW would need none of these, but libpcap 1.10 cannot read a file with two
such interfaces."""
_COOKED_HEAD = struct.Struct(">HHIHBB8s")
_IPV4, _IPV6 = 0x0800, 0x86DD
_NO_HARDWARE = 0xFFFE
_TO_US, _FROM_US = 0, 4
_IN = 1
"""value of the records' direction"""
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_END, _COMMENT, _NAME, _FLAGS, _APPLICATION, _RESOLUTION = 0, 1, 2, 2, 4, 9
_NANOSECONDS = b"\x09"


class PcapNgSink(StreamSink):
    """Writes rows of a gadget that has packets. Raises UsageError for a terminal and for other gadgets."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget], terminal: Terminal | None) -> None:
        if any(all(field.type != _DATA for field in gadget.record.fields) for gadget in gadgets):
            raise UsageError("-o pcap-ng is for packets", "kubectl gadget tcpdump -o pcap-ng > packets.pcapng")
        if terminal is not None:
            raise UsageError(
                "-o pcap-ng is binary and not for a terminal",
                "end the command with `> packets.pcapng` or `| wireshark -k -i -`",
            )
        super().__init__(stream.buffer)
        self._interfaces: dict[str, int] = {}

    def start(self) -> None:
        application = f"kubectl-gadget {__version__}".encode()
        body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(_APPLICATION, application) + _option(_END)
        self._stream.write(_block(_SECTION, body))

    def write_chunk(self, rows: Rows) -> None:
        for node, packet in rows.collect(_packets):
            interface = self._interfaces.get(node)
            if interface is None:
                interface = self._interfaces[node] = len(self._interfaces)
                options = _option(_NAME, node.encode()) + _option(_RESOLUTION, _NANOSECONDS) + _option(_END)
                self._stream.write(_block(_INTERFACE, struct.pack("<HHI", _COOKED, 0, 0) + options))
            self._stream.write(_block(_PACKET, struct.pack("<I", interface) + packet))


def _packets(batch: Batch) -> list[tuple[str, bytes]]:
    """The node of each row, and its block without the interface number."""
    field = next(field for field in batch.gadget.record.fields if field.type == _DATA)
    spans = batch.spans(field)
    memory = batch.buffer.bytes.data
    nodes = owner_texts(batch, "node").values()
    columns = zip(
        batch.wall_ns().tolist(),
        spans.starts.tolist(),
        spans.lengths.tolist(),
        batch.raw("length").tolist(),
        batch.raw("direction").tolist(),
        _comments(batch),
        strict=True,
    )
    found = []
    for wall, start, length, whole, direction, comment in columns:
        data = _cooked(bytes(memory[start : start + length]), direction)
        more = _COOKED_HEAD.size
        head = struct.pack("<IIII", wall >> 32 & 0xFFFFFFFF, wall & 0xFFFFFFFF, length + more, whole + more)
        data += bytes(-len(data) % 4)
        options = _option(_COMMENT, comment.encode()) + _option(_FLAGS, struct.pack("<I", direction)) + _option(_END)
        found.append(head + data + options)
    return list(zip(nodes, found, strict=True))


def _cooked(packet: bytes, direction: int) -> bytes:
    protocol = _IPV6 if packet[:1] >= b"\x60" else _IPV4
    way = _TO_US if direction == _IN else _FROM_US
    return _COOKED_HEAD.pack(protocol, 0, 0, _NO_HARDWARE, way, 0, b"") + packet


def _comments(batch: Batch) -> list[str]:
    """Return `nginx[4711] default/web-0/nginx`, or the known parts of it."""
    owners = (owner_texts(batch, name).values() for name in ("namespace", "pod", "container"))
    comms = (raw.partition(b"\0")[0].decode(errors="replace") for raw in batch.raw("comm").tolist())
    processes = (
        f"{escape(comm)}[{pid}]" if pid else "" for comm, pid in zip(comms, batch.raw("pid").tolist(), strict=True)
    )
    places = ("/".join(name for name in names if name) for names in zip(*owners, strict=True))
    return [" ".join(part for part in parts if part) for parts in zip(processes, places, strict=True)]


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
