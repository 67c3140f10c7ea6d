"""Packets as programs send them, for tests of views: made with the layout that the catalogue has."""

from typing import Any

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.protocols.tcp import TCP, UDP
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter

__all__ = ["CLIENT", "SERVER", "TCP", "UDP", "read", "sent"]

CLIENT, SERVER = b"\0" * 10 + b"\xff\xff\x0a\0\0\x07", b"\0" * 10 + b"\xff\xff\x0a\0\0\x35"


def sent(gadget: Gadget, *packets: dict[str, Any]) -> Batch:
    """A batch of packets. What a packet does not say: a client's socket 1, over UDP, to the server's port 53."""
    assert gadget.sent is not None
    writer = RowWriter(gadget.sent)
    for packet in packets:
        values = {
            "pid": 42,
            "cgroup": 7,
            "socket": 1,
            "local": CLIENT,
            "local_port": 40000,
            "remote": SERVER,
            "remote_port": 53,
            "protocol": UDP,
            "payload_bytes": len(packet.get("payload", b"")),
            "payload": b"",
        } | packet
        writer.add(b"", values.pop("timestamp", 0), values)
    return decode(gadget.as_sent(), "node", writer.take())


def read(gadget: Gadget, data: bytes) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    return MemberRows().records(Rows([decode(gadget, "node", data)]))
