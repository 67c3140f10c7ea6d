"""Names of the other ends of connections: which pod, service or node has the address in a row, at the row's time.

A field of type gadget_ip whose name is in PEERS has these names: `remote` becomes `remote_kind`, `remote_node`,
`remote_namespace`, `remote_pod` and `remote_service` beside the address, and tables show the best of them. They are
looked up when a row is written, since the API server may list its objects later than the row came.
"""

import binascii
import hashlib
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.gadgets.schema import PEERS, Field
from kubectl_gadget.kube.addresses import PEER_KINDS, UNKNOWN_PEER, OwnEnd, Peer
from kubectl_gadget.linux.names import address_text
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import Kind, Member, addresses
from kubectl_gadget.rows.texts import CodedMarks, Texts
from kubectl_gadget.rows.vectors import Vector

_NAMES = ("node", "namespace", "pod", "service")


class _Peers(NamedTuple):
    """The peer of row i is `found[codes[i]]`."""

    codes: npt.NDArray[np.intp]
    found: Sequence[Peer]


def _looked_up(batch: Batch, field: Field) -> _Peers:
    if batch.addresses is None:
        return _Peers(np.zeros(len(batch), np.intp), [UNKNOWN_PEER])
    raw = batch.raw(field).tolist()
    numbers = {address: number for number, address in enumerate(dict.fromkeys(raw))}
    codes = np.fromiter(map(numbers.__getitem__, raw), np.intp, len(raw))
    cluster, found, by_row = batch.addresses(), list[Peer](), set[int]()
    texts = [address_text(address) or "" for address in numbers]
    for place, text in enumerate(texts):
        peer = cluster.peer(text) if text else UNKNOWN_PEER
        if peer is None:
            by_row.add(place)
        found.append(peer or UNKNOWN_PEER)
    if not by_row:
        return _Peers(codes, found)
    # The owner of these depends on the time, the port, or the end that is connected with them.
    rows = np.flatnonzero(np.isin(codes, list(by_row))).tolist()
    ports, own_ports = _ports(batch, field.name), _ports(batch, PEERS[field.name])
    times, nodes, containers = _times(batch), batch.nodes(), batch.row_containers()
    places: dict[Peer, int] = {}
    for row in rows:
        own = OwnEnd(nodes[row], containers[row].namespace, containers[row].pod, own_ports[row])
        peer = cluster.peer_at(texts[codes[row]], ports[row], times[row], own)
        place = places.setdefault(peer, len(found))
        if place == len(found):
            found.append(peer)
        codes[row] = place
    return _Peers(codes, found)


def _has(batch: Batch, name: str) -> bool:
    return any(field.name == name for field in batch.gadget.record.fields)


def _ports(batch: Batch, end: str) -> Sequence[int]:
    """The ports of an end; gadgets that sum up have only the server's."""
    for name in (f"{end}_port", "port"):
        if _has(batch, name):
            return batch.raw(name).tolist()  # type: ignore[no-any-return]
    return [0] * len(batch)


def _times(batch: Batch) -> Sequence[int | None]:
    try:
        return batch.wall_ns().tolist()  # type: ignore[no-any-return]
    except KeyError:
        return [None] * len(batch)


def peers(batch: Batch, field: Field) -> _Peers:
    """The peers of a batch, which are looked up once for all of its members."""
    found: _Peers | None = batch.peers.get(field.name)
    if found is None:
        found = batch.peers[field.name] = _looked_up(batch, field)
    return found


def peers_of(batch: Batch, name: str) -> list[Peer]:
    """The peer of each row, by the field with its address."""
    codes, found = peers(batch, batch.gadget.record.field(name))
    return [found[code] for code in codes.tolist()]


def _members(column: str, field: Field) -> tuple[Member, ...]:
    def address(batch: Batch) -> Vector:
        return batch.vector(column, lambda batch: addresses(batch, field))

    def named(name: str) -> Member:
        def read(batch: Batch) -> Texts:
            codes, found = peers(batch, field)
            return CodedMarks(codes, [getattr(peer, name) or None for peer in found] or [None])

        return Member(f"{column}_{name}", "text", read, optional=True, names=PEER_KINDS if name == "kind" else ())

    return (Member(column, "text", address), *map(named, ("kind", *_NAMES)))


def _show(batch: Batch, field: Field) -> list[str]:
    codes, found = peers(batch, field)
    texts = addresses(batch, field).texts()
    return [found[code].text(text) if text else "-" for code, text in zip(codes.tolist(), texts, strict=True)]


PEER = Kind(_members, _show)


# Community ID, version 1, seed 0: an identifier of a flow that Zeek, Suricata and Wireshark also compute.


_NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
_PORTS = struct.Struct(">BxHH")
_PING = {"ICMP": (8, 0), "ICMPv6": (128, 129)}
"""echo request and echo reply"""


def community_id(protocol: str, client: tuple[str, int], server: tuple[str, int]) -> str:
    """`1:LQU9qZlK+B5F3KDmev6m5PMibrg=`, from addresses and ports of both ends. Raises KeyError for other protocols."""
    ports = _PING.get(protocol) or (client[1], server[1])
    first, second = (_packed(client[0]), ports[0]), (_packed(server[0]), ports[1])
    if second < first:
        first, second = second, first
    data = b"\0\0" + first[0] + second[0] + _PORTS.pack(_NUMBERS[protocol], first[1], second[1])
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return f"1:{binascii.b2a_base64(digest, newline=False).decode()}"


@lru_cache(65536)
def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
