"""Reads rows of trace tcp, trace udp and trace icmp column by column. Each row is the view of one end of a flow.

There may be a hundred thousand rows per second, so a row is a plain tuple, and its owner is computed once for all rows
of a process. An unknown number is -1 here, since comparing with None costs more.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import EPERM
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.flows.flow import Who, address_name
from kubectl_gadget.kube.addresses import Addresses, OwnEnd, PodFacts, is_shared
from kubectl_gadget.linux.names import address_text
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import UNKNOWN, Container
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.rows.texts import Memo, until_nul
from kubectl_gadget.rows.vectors import exact
from kubectl_gadget.wire.policy_events import read_exec_id

# Owners of addresses: what the cluster knows (kube/addresses.py), traced containers, and DNS answers. Note: what a
# traced container uses takes precedence over the cluster's view, which may be late.

_MOST_NAMES = 65536
_MOST_ADDRESSES = 65536
_MOST_FOUND = 65536
_MOST_PODS = 65536


class AddressBook:
    """Finds owners of addresses. `cluster` may be set from any thread."""

    def __init__(self) -> None:
        self.cluster = Addresses()
        self._seen: OrderedDict[str, PodFacts] = OrderedDict()
        """pods that used an address as their own"""
        self._names: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._unknown: dict[tuple[str, str], PodFacts] = {}
        """traced pods that the cluster's view does not have"""
        self._found: dict[tuple[str, str], Who] = {}
        self._own: dict[tuple[str, str, bool], str] = {}
        """an address that a pod used last, by namespace, name and whether it is IPv6"""
        self._found_in = self.cluster
        """the `cluster` for which `_found` was filled"""

    def facts(self, namespace: str, pod: str, uid: str = "") -> PodFacts:
        """Return what is known about a traced pod. Equal pods are one object, since comparing objects is faster."""
        found = self.cluster.by_name.get((namespace, pod))
        if found is None or not found.is_of(uid):
            found = self._unknown.get((namespace, pod))
        if found is None:
            if len(self._unknown) >= _MOST_PODS:
                self._unknown.clear()
            found = self._unknown[namespace, pod] = PodFacts(namespace, pod)
        return found

    def saw(self, ip: str, pod: PodFacts) -> None:
        """Records that a traced container of this pod used this address as its own."""
        before = self._seen.get(ip)
        if before is pod or is_shared(ip) or ip in self.cluster.nodes:
            return
        self._seen[ip] = pod
        if len(self._own) >= _MOST_PODS:
            self._own.clear()
        self._own[pod.namespace, pod.name, ":" in ip] = ip
        if before != pod:
            self._found.clear()
        self._seen.move_to_end(ip)
        if len(self._seen) > _MOST_ADDRESSES:
            self._seen.popitem(last=False)

    def address_of(self, who: Who, is_ipv6: bool) -> str:
        """An address of a pod or of a node's processes; empty if it is not known."""
        name = (who.pod.namespace, who.pod.name) if who.pod else ("", who.node)
        seen = self._own.get((*name, is_ipv6))
        return seen or next((ip for ip in self.cluster.own.get(name, ()) if (":" in ip) == is_ipv6), "")

    def is_own(self, ip: str) -> bool:
        """True if pods or nodes have this address themselves, so that no service can have it."""
        return ip in self._seen or ip in self.cluster.pods

    def resolved(self, asker: str, ip: str, name: str) -> None:
        """Records that a pod or a node got a DNS answer in which `name` has this address."""
        self._names[asker, ip] = name.rstrip(".")
        self._names.move_to_end((asker, ip))
        self._found.pop((asker, ip), None)
        if len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)

    def find(self, ip: str, asker: str, port: int = 0, at_ns: int | None = None, own: OwnEnd | None = None) -> Who:
        """The owner of an address whose end was not traced. `asker` is the name of the other end; the others are as in
        Addresses.peer_at."""
        found = self.known(ip, asker)
        if found is None:
            found = self._find(ip, asker, port, at_ns, own)
            if self.cluster.peer(ip) is not None:
                self._found[asker, ip] = found
        return found

    def known(self, ip: str, asker: str) -> Who | None:
        """Return the earlier result of `find`, if it still holds and does not depend on its other arguments."""
        if self._found_in is not self.cluster or len(self._found) > _MOST_FOUND:
            self._found.clear()
            self._found_in = self.cluster
        return self._found.get((asker, ip))

    def _find(self, ip: str, asker: str, port: int, at_ns: int | None, own: OwnEnd | None) -> Who:
        name = self._names.get((asker, ip))
        names = (name,) if name else ()
        peer = self.cluster.peer_at(ip, port, at_ns, own)
        seen = self._seen.get(ip)
        if seen is not None and not (peer.kind == "pod" and ip in self.cluster.tenures):
            return Who("pod", seen, names=names)
        match peer.kind:
            case "pod" | "ended pod" if peer.pod:
                pod = self.cluster.pod_at(ip, at_ns) or self.facts(peer.namespace, peer.pod)
                return Who(peer.kind, pod, names=names)
            case "service" | "kube-apiserver":
                return Who(peer.kind, service=f"{peer.namespace}/{peer.service}", node=peer.node, names=names)
            case "node" | "kubelet":
                return Who(peer.kind, node=peer.node, names=names)
            case "pod" | "no pod":
                return Who(peer.kind, names=names, address=address_name(ip))
        if is_shared(ip):
            return Who("loopback", names=names, address=address_name(ip))
        return Who("name" if names else "world", names=names, address=address_name(ip))


# Rows, each from one end of a flow

GADGETS = frozenset({"trace_tcp", "trace_udp", "trace_icmp"})

_MOST_KNOWN = 65536
_NUMBERS = ("duration", "rtt", "sent", "received")
_WHO = struct.Struct("<IIII16s16s16s")
"""number of the place, family of the socket if it is one of RAW, pid, pid of the socket's other user, exec ID, comm,
the other user's comm"""
RAW = {17: "packet", 44: "xdp"}
"""Sockets whose processes send with headers of their own: AF_PACKET, AF_XDP."""
_SERVER = 2
_SIDES = ("", "client", "server")
"""by a row's initiator"""
Key = tuple[str, str, str, int, str, int]
"""scope, protocol, client and server; the scope distinguishes loopback addresses of different network namespaces"""
AddressPort = tuple[str, int]


class FlowEnd(NamedTuple):
    """One end's view of a flow. -1: unknown."""

    event: str
    """tcp, udp, icmp"""
    time_ns: int
    """wall time"""
    who: Who
    operation: str
    error: str
    side: str
    """client, server; empty when the row does not say which end began"""
    key: Key
    """of its flow; this end counts as the client when the row does not say"""
    how: str = ""
    """how the flow ended"""
    duration: int = -1
    rtt: int = -1
    sent: int = -1
    received: int = -1
    sent_packets: int = 0
    received_packets: int = 0
    retransmits: int = 0
    sequence: int = 0
    """of the SYN; 0: unknown"""
    denied: tuple[str, str] | None = None
    """the network policies that rejected a connect, and their rule"""

    @property
    def protocol(self) -> str:
        return self.key[1]

    @property
    def local(self) -> AddressPort:
        """This end's address and port."""
        return self.key[4:] if self.side == "server" else self.key[2:4]

    @property
    def remote(self) -> AddressPort:
        """The other end's address and port."""
        return self.key[2:4] if self.side == "server" else self.key[4:]


_make_end: Callable[[tuple[object, ...]], FlowEnd] = partial(tuple.__new__, FlowEnd)
"""End._make without its check of the length."""


class EndReader:
    """Reads batches of rows; pods are looked up in `book`."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        self._cluster = book.cluster
        self._addresses: Memo[bytes, str] = Memo(self._read_address)
        self._shared: set[str] = set()
        """the addresses that many hosts or pods have"""
        self._places: dict[tuple[str, Container], int] = {}
        self._place_list: list[tuple[str, Container]] = []
        self._known = Memo(self._read_who)

    def read(self, batch: Batch) -> list[FlowEnd]:
        """All rows of a batch; its gadget must be one of GADGETS."""
        has = {field.name for field in batch.gadget.record.fields}
        count = len(batch)

        def word(name: str) -> Iterable[str]:
            members = filter_members(batch.gadget)
            return members[name].read(batch).values() if name in members else repeat("")

        def number(*names: str) -> Iterable[int]:
            for name in names:
                if name in has:
                    array = batch.raw(name)
                    found: list[int] = (array.view(np.int64) if name in _NUMBERS else array).tolist()
                    return found
            return repeat(-1 if names[0] in _NUMBERS else 0)

        owners = list(map(self._known.__getitem__, _keys_of(self._owner_words(batch, has))))
        sides = batch.raw("initiator") if "initiator" in has else np.zeros(count, np.uint32)
        protocols = word("protocol") if "protocol" in filter_members(batch.gadget) else repeat("TCP")
        columns: list[Iterable[Any]] = [
            repeat(batch.gadget.event),
            batch.wall_ns().tolist(),
            owners,
            word("operation"),
            word("error"),
            map(_SIDES.__getitem__, sides.tolist()),
            self._keys(batch, owners, sides == _SERVER, protocols),
            word("end"),
            *map(number, _NUMBERS),
            number("sent_packets", "sent_segments"),
            number("received_packets", "received_segments"),
            number("retransmits"),
            number("initial_sequence"),
            _denials(batch) if "policy" in has else repeat(None),
        ]
        return list(map(_make_end, zip(*columns, strict=False)))

    def _limit_addresses(self) -> None:
        if len(self._addresses) > _MOST_KNOWN:
            self._addresses.clear()
            self._shared.clear()

    def _keys(
        self, batch: Batch, owners: Sequence[Who], serves: npt.NDArray[np.bool_], protocols: Iterable[str]
    ) -> Iterable[Key]:
        """The flow of each row; where `serves` is set, the other end is the client."""
        self._limit_addresses()
        local, remote = batch.raw("local"), batch.raw("remote")
        local_port, remote_port = batch.raw("local_port"), batch.raw("remote_port")
        if batch.gadget.name == "trace_icmp":
            remote_port = np.zeros_like(remote_port)  # the local one is the ID of the ping
        clients, servers = np.where(serves, remote, local).tolist(), np.where(serves, local, remote).tolist()
        found = list(map(self._addresses.__getitem__, clients))
        scopes: Iterable[str] = repeat("")
        if not self._shared.isdisjoint(found):
            scopes = [who.scope if ip in self._shared else "" for who, ip in zip(owners, found, strict=True)]
        return zip(
            scopes,
            protocols,
            found,
            np.where(serves, remote_port, local_port).tolist(),
            map(self._addresses.__getitem__, servers),
            np.where(serves, local_port, remote_port).tolist(),
            strict=False,
        )

    def who(self, row: Mapping[str, Any]) -> Who:
        """The owner of a row in the form of -o json."""
        container = Container(
            namespace=row.get("namespace") or "",
            pod=row.get("pod") or "",
            container=row.get("container") or "",
            pod_uid=row.get("pod_uid") or "",
        )
        user = row.get("user_pid") or None, row.get("user_comm") or ""
        family = row.get("family") or ""
        socket = family if family in RAW.values() else ""
        process = row.get("pid"), row.get("comm") or "", row.get("exec_id") or ""
        return self._who(row["node"], container, *process, *user, socket)

    def _read_address(self, address: bytes) -> str:
        text = address_text(address) or ""
        if is_shared(text):
            self._shared.add(text)
        return text

    def _owner_words(self, batch: Batch, has: set[str]) -> npt.NDArray[np.uint64]:
        """A key of `_known` for the owner of each row, as words."""
        if self._cluster is not self._book.cluster or len(self._known) > _MOST_KNOWN:
            self._cluster = self._book.cluster
            self._known.clear()
            self._places.clear()
            self._place_list.clear()
        # Whatever identifies a process, as one value of bytes: a faster key for a dictionary than a tuple of values.
        words = np.zeros((len(batch), _WHO.size // 8), np.uint64)
        words[:, 0] = self._numbered_places(batch)
        if batch.gadget.name == "trace_udp" and "family" in has:
            family = batch.raw("family").astype(np.uint64)
            words[:, 0] |= np.where(np.isin(family, tuple(RAW)), family, 0).astype(np.uint64) << np.uint64(32)
        for name, shift in (("pid", 0), ("user_pid", 32)):
            if name in has:
                words[:, 1] |= batch.raw(name).astype(np.uint64) << np.uint64(shift)
        for place, name in ((2, "exec_id"), (4, "comm"), (6, "user_comm")):
            if name in has:
                words[:, place : place + 2] = batch.raw(name).view(np.uint64).reshape(-1, 2)
        return words

    def _numbered_places(self, batch: Batch) -> npt.NDArray[np.int64]:
        """A number for the combination of node and container of each row."""
        containers: Sequence[Container] = [UNKNOWN]
        codes = np.zeros(len(batch), np.int64)
        if batch.owners is not None:
            containers, codes = batch.owners.containers, batch.owners.codes
        nodes: Sequence[str] = [batch.node]
        if batch.origins is not None:
            nodes, codes = batch.origins.nodes, batch.origins.codes * len(containers) + codes
        counts = np.bincount(codes)
        numbers = np.zeros(len(counts), np.int64)
        for code in np.flatnonzero(counts).tolist():
            node, container = divmod(code, len(containers))
            place = (nodes[node], containers[container])
            number = self._places.setdefault(place, len(self._place_list))
            if number == len(self._place_list):
                self._place_list.append(place)
            numbers[code] = number
        found: npt.NDArray[np.int64] = numbers[codes]
        return found

    def _read_who(self, key: bytes) -> Who:
        place, family, pid, user_pid, exec_id, comm, user_comm = _WHO.unpack(key)
        node, container = self._place_list[place]
        program = read_exec_id(exec_id)
        texts = [exact(until_nul(text)) for text in (comm, user_comm)]
        return self._who(
            node,
            container,
            pid,
            texts[0],
            program.text(node) if program else "",
            user_pid,
            texts[1],
            RAW.get(family, ""),
        )

    def _who(
        self,
        node: str,
        owner: Container,
        pid: int | None,
        comm: str,
        exec_id: str,
        user_pid: int | None,
        user_comm: str,
        socket: str = "",
    ) -> Who:
        pod = self._book.facts(owner.namespace, owner.pod, owner.pod_uid) if owner.pod else None
        return Who(
            entity="pod" if pod else "world" if owner.container else "node",
            pod=pod,
            container=owner.container,
            node=node,
            pid=pid or None,
            comm=comm if pid else "",
            exec_id=exec_id if pid else "",
            user_pid=user_pid or None,
            user_comm=user_comm if user_pid else "",
            socket=socket,
            scope=f"{node}/{owner.pod_uid or owner.pod}",
        )


def _keys_of(words: npt.NDArray[np.uint64]) -> list[bytes]:
    found: list[bytes] = words.view(f"V{_WHO.size}").ravel().tolist()
    return found


def _denials(batch: Batch) -> Iterable[tuple[str, str] | None]:
    """Policies and rule of each row that failed because of them. Hardly any row did, so this is checked first."""
    if not (batch.raw("errno") == EPERM).any():
        return repeat(None)
    members = filter_members(batch.gadget)
    policies, rules = (members[name].read(batch).values() for name in ("policy", "rule"))
    return [(policy, rule or "") if policy else None for policy, rule in zip(policies, rules, strict=True)]
