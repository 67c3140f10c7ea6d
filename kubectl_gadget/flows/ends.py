"""Rows of trace tcp, trace udp and trace icmp: what one end of a flow saw, read a column at a time.

There may be a hundred thousand of them a second, so a row is a plain tuple, and whose it is has been made once for all
rows of a process. The trap: a number that is not known is -1 here, since comparing with None costs more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.exec_id import read_exec_id
from kubectl_gadget.events.identity import UNKNOWN, Container
from kubectl_gadget.events.linux_network import address_text
from kubectl_gadget.events.members import filter_members
from kubectl_gadget.events.texts import Memo, until_nul
from kubectl_gadget.events.vectors import exact
from kubectl_gadget.events.wall_time import nanoseconds
from kubectl_gadget.flows.book import AddressBook
from kubectl_gadget.flows.flow import Who

GADGETS = frozenset({"trace_tcp", "trace_udp", "trace_icmp"})

_MOST_KNOWN = 65536
_NUMBERS = ("duration", "rtt", "sent", "received")
_Told = tuple[int, int, bytes, bytes, int, bytes]
"""number of the place, pid, comm, exec id, and pid and comm of who else uses the socket"""


class End(NamedTuple):
    """What one end saw. -1: not known."""

    gadget: str
    time_ns: int
    """wall time"""
    who: Who
    operation: str
    error: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    initiator: str = ""
    how: str = ""
    """it ended"""
    duration: int = -1
    rtt: int = -1
    sent: int = -1
    received: int = -1
    sent_packets: int = 0
    received_packets: int = 0
    retransmits: int = 0
    protocol: str = ""
    """of trace udp and trace icmp"""
    sequence: int = 0
    """of the SYN; 0: not known"""


_make_end: Callable[[tuple[Any, ...]], End] = partial(tuple.__new__, End)
"""End._make without its check of the length."""


class EndReader:
    """Looks pods up in `book`."""

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        self._cluster = book.cluster
        self._addresses: Memo[bytes, str] = Memo(lambda address: address_text(address) or "")
        self._places: dict[tuple[str, Container], int] = {}
        self._place_list: list[tuple[str, Container]] = []
        self._known = Memo(self._read_who)

    def read(self, batch: Batch) -> list[End]:
        """All rows of a batch of one of GADGETS."""
        has = {field.name for field in batch.gadget.record.fields}
        count = len(batch)

        def word(name: str) -> Sequence[str]:
            members = filter_members(batch.gadget)
            return members[name].read(batch).values() if name in members else [""] * count

        def number(*names: str) -> Sequence[int]:
            for name in names:
                if name in has:
                    array = batch.raw(name)
                    found: list[int] = (array.view(np.int64) if name in _NUMBERS else array).tolist()
                    return found
            return [-1 if names[0] in _NUMBERS else 0] * count

        if len(self._addresses) > _MOST_KNOWN:
            self._addresses.clear()
        ping = batch.gadget.name == "trace_icmp"
        columns = [
            [batch.gadget.name] * count,
            batch.wall_ns().tolist(),
            self._owners(batch, has),
            word("operation"),
            word("error"),
            list(map(self._addresses.__getitem__, batch.raw("local").tolist())),
            number("local_port"),  # of a ping its number
            list(map(self._addresses.__getitem__, batch.raw("remote").tolist())),
            [0] * count if ping else number("remote_port"),
            word("initiator"),
            word("end"),
            *map(number, _NUMBERS),
            number("sent_packets", "sent_segments"),
            number("received_packets", "received_segments"),
            number("retransmits"),
            word("protocol"),
            number("initial_sequence"),
        ]
        return list(map(_make_end, zip(*columns, strict=True)))

    def of(self, row: Mapping[str, Any]) -> End:
        """The same of one row as -o json has it."""

        def known(name: str) -> int:
            value = row.get(name)
            return -1 if value is None else value

        ping = row["event"] == "trace_icmp"
        return End(
            gadget=row["event"],
            time_ns=nanoseconds(row["timestamp"]),
            who=self.who(row),
            operation=row.get("operation", ""),
            error=row.get("error") or "",
            local=row.get("local") or "",
            local_port=row["id"] if ping else row.get("local_port", 0),
            remote=row.get("remote") or "",
            remote_port=0 if ping else row.get("remote_port", 0),
            initiator=row.get("initiator") or "",
            how=row.get("end") or "",
            duration=known("duration"),
            rtt=known("rtt"),
            sent=known("sent"),
            received=known("received"),
            sent_packets=row.get("sent_packets") or row.get("sent_segments") or 0,
            received_packets=row.get("received_packets") or row.get("received_segments") or 0,
            retransmits=row.get("retransmits") or 0,
            protocol=row.get("protocol") or "",
            sequence=row.get("initial_sequence") or 0,
        )

    def who(self, row: Mapping[str, Any]) -> Who:
        """Whose a row is, as -o json has it."""
        container = Container(
            namespace=row.get("namespace") or "",
            pod=row.get("pod") or "",
            container=row.get("container") or "",
            pod_uid=row.get("pod_uid") or "",
        )
        user = row.get("user_pid") or None, row.get("user_comm") or ""
        return self._who(row["node"], container, row.get("pid"), row.get("comm") or "", row.get("exec_id") or "", *user)

    def _owners(self, batch: Batch, has: set[str]) -> list[Who]:
        """Whose each row is."""
        if self._cluster is not self._book.cluster or len(self._known) > _MOST_KNOWN:
            self._cluster = self._book.cluster
            self._known.clear()
            self._places.clear()
            self._place_list.clear()
        columns: list[list[Any]] = [self._numbered_places(batch)]
        for name, none in (("pid", 0), ("comm", b""), ("exec_id", b""), ("user_pid", 0), ("user_comm", b"")):
            columns.append(batch.raw(name).tolist() if name in has else [none] * len(batch))
        return list(map(self._known.__getitem__, zip(*columns, strict=True)))

    def _numbered_places(self, batch: Batch) -> list[int]:
        """A number for each row's node and container."""
        containers: Sequence[Container] = [UNKNOWN]
        codes = np.zeros(len(batch), np.int64)
        if batch.owners is not None:
            containers, codes = batch.owners.containers, batch.owners.codes
        nodes: Sequence[str] = [batch.node]
        if batch.origins is not None:
            nodes, codes = batch.origins.nodes, batch.origins.codes * len(containers) + codes
        used, rows = np.unique(codes, return_inverse=True)
        numbers = []
        for code in used.tolist():
            node, container = divmod(code, len(containers))
            place = (nodes[node], containers[container])
            number = self._places.setdefault(place, len(self._place_list))
            if number == len(self._place_list):
                self._place_list.append(place)
            numbers.append(number)
        return np.array(numbers, np.int64)[rows].tolist() if numbers else []

    def _read_who(self, key: _Told) -> Who:
        place, pid, comm, exec_id, user_pid, user_comm = key
        node, container = self._place_list[place]
        program = read_exec_id(exec_id)
        texts = [exact(until_nul(text)) for text in (comm, user_comm)]
        return self._who(node, container, pid, texts[0], program.text(node) if program else "", user_pid, texts[1])

    def _who(
        self,
        node: str,
        owner: Container,
        pid: int | None,
        comm: str,
        exec_id: str,
        user_pid: int | None,
        user_comm: str,
    ) -> Who:
        pod = self._book.facts(owner.namespace, owner.pod) if owner.pod else None
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
            scope=f"{node}/{owner.pod_uid or owner.pod}",
        )
