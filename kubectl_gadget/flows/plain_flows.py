"""TCP connections whose rows can be joined without looking at one row at a time: most of them, when there are many.

A connection is plain when only its own rows decide what becomes of it: both ends use the same addresses, one process
owns each end, and no other row of the chunk is about them. `choose` finds these rows in columns and applies them round
by round: the first row of every connection, then the second, so that no connection occurs twice in a round. What is
known of them is kept in arrays, at a slot for each. The trap: everything here must do what FlowTable does with single
rows (joiner.py), which takes over (PlainConnections.as_flow) as soon as a row asks for more; a test compares both.
The module is long because what is not plain is best read beside what is done with the rest.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import compress, repeat
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.flows.addresses import AddressBook
from kubectl_gadget.flows.ends import ACCEPT, CLOSE, CONNECT, REPORT, SYN, AddressPort, EndColumns, EndReader, Key
from kubectl_gadget.flows.equal_rows import equal_rows
from kubectl_gadget.flows.flow import Flow, Party, PodFacts, Who, address_name
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.vectors import different, pick

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
ClientKey = tuple[str, str, int]
"""protocol, address and port"""

_MOST_ROUNDS = 16
"""Connections with more rows in one chunk are joined row by row."""
_LEAST_SLOTS = 1 << 16
_NEVER = 1 << 62


class PlainConnections:
    """What is known of plain connections, by slot."""

    def __init__(self) -> None:
        self.size = 0
        self._free = np.zeros(0, np.int64)
        self._released: list[int] = []
        """free, but events of the current chunk may still show them"""
        for name, empty in _FIELDS.items():
            setattr(self, name, empty[:0])

    first_ns: Integers
    sent: Integers
    received: Integers
    sent_packets: Integers
    received_packets: Integers
    retransmits: Integers
    rtt: Integers
    """-1: unknown"""
    ended_ns: Integers
    ended_number: Integers
    """its number among all flows that have ended"""
    pins: Integers
    """places that refer to the slot: the table of flows, the queue of ended ones, sequence numbers"""
    client_v4: npt.NDArray[np.uint64]
    """address and port of the client, as in community_id.py; 0: it is not IPv4"""
    server_v4: npt.NDArray[np.uint64]
    by_client: Mask
    by_server: Mask
    one_address: Mask
    """both ends have the same address"""
    one_pod: Mask
    """both ends are in the same pod"""
    client: Objects
    """who owns the end (Who)"""
    server: Objects
    client_reported: Objects
    """Party.reported"""
    server_reported: Objects
    key: Objects
    id: Objects
    flow: Objects
    """the Flow that has replaced what is here"""

    def take(self, count: int) -> Integers:
        """Empty slots."""
        if self._released:
            released, self._released = np.array(self._released, np.int64), []
            for name, empty in _FIELDS.items():
                getattr(self, name)[released] = empty[0]
            self._free = np.concatenate([self._free, released])
        if count > len(self._free):
            more = max(count - len(self._free), self.size, _LEAST_SLOTS)
            self._free = np.concatenate([self._free, np.arange(self.size, self.size + more)])
            self.size += more
            for name, empty in _FIELDS.items():
                setattr(self, name, _grown(getattr(self, name), self.size, empty[0]))
        slots, self._free = self._free[:count], self._free[count:]
        return slots

    def compare_pods(self, slots: Integers) -> None:
        """Sets `one_pod` of these connections; to be called whenever an owner has changed."""
        clients, servers = (_objects(list(map(_pod_of, whos[slots].tolist()))) for whos in (self.client, self.server))
        both = (clients != None) & (servers != None)  # noqa: E711 - by element
        both[both] = clients[both] == servers[both]
        self.one_pod[slots] = both

    def unpin(self, slot: int) -> None:
        """Removes one reference to a slot; without any it is free from the next chunk on."""
        self.pins[slot] -= 1
        if not self.pins[slot]:
            self._released.append(slot)

    def as_flow(self, slot: int) -> Flow:
        """The connection as a Flow, which replaces what is known here."""
        known: Flow | None = self.flow[slot]
        if known is not None:
            return known
        _, protocol, client, client_port, server, server_port = self.key[slot]
        flow = self.flow[slot] = Flow(
            protocol,
            Party(client, client_port, self.client[slot], self.client_reported[slot]),
            Party(server, server_port, self.server[slot], self.server_reported[slot]),
            True,
            int(self.first_ns[slot]),
        )
        for name in (*_NUMBERS, "by_client", "by_server"):
            setattr(flow, name, getattr(self, name)[slot].item())
        if self.rtt[slot] >= 0:
            flow.rtt_ns = int(self.rtt[slot])
        return flow


_NUMBERS = ("sent", "received", "sent_packets", "received_packets", "retransmits", "ended_ns")
_FIELDS: dict[str, npt.NDArray[Any]] = {
    **dict.fromkeys(("first_ns", "ended_number", "pins", *_NUMBERS), np.zeros(1, np.int64)),
    "rtt": np.full(1, -1),
    **dict.fromkeys(("client_v4", "server_v4"), np.zeros(1, np.uint64)),
    **dict.fromkeys(("by_client", "by_server", "one_address", "one_pod"), np.zeros(1, np.bool_)),
    **dict.fromkeys(
        ("client", "server", "client_reported", "server_reported", "key", "id", "flow"), np.full(1, None, object)
    ),
}
"""An empty slot's."""


def _grown(before: npt.NDArray[Any], size: int, empty: Any) -> npt.NDArray[Any]:
    """Zeros, and None in arrays of objects, take no memory until they are used."""
    grown: npt.NDArray[Any] = np.empty(size, object) if empty is None else np.zeros(size, before.dtype)
    grown[: len(before)] = before
    if empty:
        grown[len(before) :] = empty
    return grown


class PlainEvents(NamedTuple):
    """Events of plain connections, in columns."""

    position: Integers
    """of their rows in the chunk"""
    time_ns: Integers
    slot: Integers
    operation: Integers
    """of the row"""
    is_client: Mask
    """the side that saw it"""
    node: npt.NDArray[np.integer[Any]]
    """a place in `nodes`"""
    error: npt.NDArray[np.integer[Any]]
    """a place in `errors`"""
    end: npt.NDArray[np.integer[Any]]
    """a place in `ends`: how it ended"""
    duration: Integers
    sent: Integers
    """at that time"""
    received: Integers
    nodes: Sequence[str]
    errors: Sequence[str]
    ends: Sequence[str]

    def select(self, rows: npt.NDArray[Any]) -> "PlainEvents":
        """Some of the events."""
        columns: list[Any] = [column[rows] if isinstance(column, np.ndarray) else column for column in self]
        return PlainEvents(*columns)


class Begun(NamedTuple):
    """New connections, in order."""

    position: Integers
    slot: Integers
    keys: list[Key]
    clients: list[ClientKey]


class Changes(NamedTuple):
    """What plain rows change in the tables of flows, each with the position of its row, in order."""

    begun: Begun
    ended: tuple[Integers, Integers]
    noted: tuple[Integers, Integers, Integers]
    """positions, slots and sequence numbers of client's connects"""


class Chosen(NamedTuple):
    """The plain rows of a batch."""

    rows: Mask
    events: PlainEvents
    changes: Changes


class Tables(NamedTuple):
    """What FlowTable knows, to read."""

    flows: Any
    clients: Any
    translated: Any
    first_ended: int
    """the number of the first ended flow that is certainly still known at the end of the chunk"""


class Others(NamedTuple):
    """What the rows of other gadgets in the chunk may change."""

    ends: Collection[AddressPort]
    """addresses and ports of their flows"""
    asked: Collection[str]
    """addresses whose owners they ask for"""
    changed: Collection[str]
    """addresses whose owners or names they change"""


def choose(
    known: PlainConnections,
    reader: EndReader,
    book: AddressBook,
    batch: Batch,
    positions: Integers,
    tables: Tables,
    others: Others,
) -> Chosen | None:
    """Applies the plain rows of a batch of trace tcp, whose rows are in order. None: there are none."""
    ends = reader.columns(batch)
    groups = _Groups(ends)
    if groups.is_mixed:
        return None
    groups.look_up(tables, known)
    groups.exclude(tables, known, book, others)
    if not groups.plain.any():
        return None
    changes_begun = groups.begin(known, book, positions)
    groups.own(known)
    return groups.apply(known, positions, changes_begun)


class _Groups:
    """The connections of a batch: its rows sorted by connection. All arrays named after rows are in that order."""

    def __init__(self, ends: EndColumns) -> None:
        self.ends = ends
        words = np.empty((len(ends.time_ns), 5), np.uint64)
        serves = (ends.side == 2)[:, None]
        words[:, 0:2] = np.where(serves, ends.remote, ends.local)
        words[:, 2:4] = np.where(serves, ends.local, ends.remote)
        serves = serves.ravel()
        client_ports = np.where(serves, ends.remote_port, ends.local_port).astype(np.uint64)
        server_ports = np.where(serves, ends.local_port, ends.remote_port).astype(np.uint64)
        words[:, 4] = client_ports << np.uint64(16) | server_ports
        self.order, self.starts, numbers, self.is_mixed = equal_rows(words)
        self.group = numbers[self.order]
        self._firsts = self.order[self.starts]
        self._words = words[self._firsts]
        self.sizes = np.diff(np.append(self.starts, len(words)))
        self.side, self.operation = ends.side[self.order], ends.operation[self.order]
        self.who, self.sequence = ends.who[self.order], ends.sequence[self.order]
        self.plain = np.ones(len(self.starts), np.bool_)
        addresses = np.ascontiguousarray(self._words[:, :4]).reshape(-1, 2)
        order, starts, numbers, is_mixed = equal_rows(addresses)
        self.is_mixed |= is_mixed
        self.client_at, self.server_at = numbers[::2], numbers[1::2]
        self._packed: list[bytes] = addresses[order[starts]].view("S16").ravel().tolist()

    def look_up(self, tables: Tables, known: PlainConnections) -> None:
        """Finds keys, and what is known of them."""
        self.addresses = _objects(list(map(self.ends.addresses.__getitem__, self._packed)))
        self.client: list[str] = self.addresses[self.client_at].tolist()
        server: list[str] = self.addresses[self.server_at].tolist()
        client_port, server_port = self._words[:, 4] >> np.uint64(16), self._words[:, 4] & np.uint64(0xFFFF)
        self.client_number = self.client_at << 16 | client_port.astype(np.int64)
        self.client_port: list[int] = client_port.tolist()
        self.keys: list[Key] = list(
            zip(repeat(""), repeat("TCP"), self.client, self.client_port, server, server_port.tolist(), strict=False)
        )
        found = list(map(tables.flows.get, self.keys, repeat(-1)))
        try:
            self.slot = np.fromiter(found, np.int64, len(found))
        except TypeError:  # some are flows
            self.slot = np.array([slot if slot.__class__ is int else -2 for slot in found], np.int64)
        at = np.flatnonzero(self.slot >= 0)
        replaced = at[known.flow[self.slot[at]] != None]  # noqa: E711 - by element
        self.slot[replaced] = -2

    def _any(self, rows: Mask) -> Mask:
        """The connections that have one of these rows."""
        found: Mask = np.logical_or.reduceat(rows, self.starts)
        return found

    def _owner(self, side: int) -> Integers:
        """The number of who owns an end of each connection, by its rows; -1: there are none, -2: several."""
        rows = (self.side == 2) == (side == 2)
        most = np.maximum.reduceat(np.where(rows, self.who, -1), self.starts)
        least = np.minimum.reduceat(np.where(rows, self.who, _NEVER), self.starts)
        return np.where((most >= 0) & (most != least), -2, most)

    def exclude(self, tables: Tables, known: PlainConnections, book: AddressBook, others: Others) -> None:
        """Marks what is not plain."""
        ends, row_numbers = self.ends, np.arange(len(self.order))
        failed = np.array([word != "" for word in ends.errors], np.bool_)
        unclear = self._any((self.side != 1) & (self.side != 2))
        odd = (self.operation == 0) | ((self.operation != CLOSE) & failed[ends.error[self.order]])
        odd |= ends.remote_port[self.order] == 0  # the call failed before it had an address
        odd |= (self.operation == REPORT) & (ends.received_packets[self.order] == 0)  # there was no answer yet
        self.owners = {1: self._owner(1), 2: self._owner(2)}
        is_close = self.operation == CLOSE
        is_fresh = (self.operation == SYN) | (self.operation == ACCEPT)
        closed = np.minimum.reduceat(np.where(is_close, row_numbers, _NEVER), self.starts)
        fresh = np.maximum.reduceat(np.where(is_fresh, row_numbers, -1), self.starts)
        self.plain = ~unclear & ~self._any(odd) & (self.sizes <= _MOST_ROUNDS) & (self.slot != -2) & (fresh < closed)
        for owner in self.owners.values():
            self.plain &= owner != -2
        self._exclude_known(tables, known, fresh >= 0)
        numbers = np.sort(self.client_number)
        often = numbers[1:][numbers[1:] == numbers[:-1]]
        if len(often):
            self.plain &= ~np.isin(self.client_number, often)
        self.clients: list[ClientKey] = list(zip(repeat("TCP"), self.client, self.client_port, strict=False))
        if not tables.clients.keys().isdisjoint(self.clients):
            others_are = np.fromiter(map(tables.clients.__contains__, self.clients), np.bool_, len(self.clients))
            self.plain &= ~((self.slot == -1) & others_are)
        touched = set(others.ends)
        for number in np.flatnonzero(unclear).tolist():
            touched |= {self.keys[number][2:4], self.keys[number][4:]}
        if touched:
            pairs = zip(self.client, self.client_port, strict=True)
            self.plain &= ~np.fromiter(map(touched.__contains__, pairs), np.bool_, len(self.client))
        self.plain &= ~self._addresses_in(self.ends.shared)[self.client_at]
        self._exclude_sequences(tables)
        self._exclude_addresses(book, others, unclear)

    def _addresses_in(self, texts: Collection[str]) -> Mask:
        """Which of the addresses are among these."""
        if not texts:
            return np.zeros(len(self.addresses), np.bool_)
        return np.fromiter(map(texts.__contains__, self.addresses.tolist()), np.bool_, len(self.addresses))

    def _exclude_known(self, tables: Tables, known: PlainConnections, fresh: Mask) -> None:
        """Known connections that begin again, may soon be forgotten, or have another owner now."""
        at = np.flatnonzero(self.slot >= 0)
        slots = self.slot[at]
        ended = known.ended_ns[slots] != 0
        bad = ended & (fresh[at] | (known.ended_number[slots] < tables.first_ended))
        whos = np.append(self.ends.whos, None)  # -1: none
        for side, reported in ((1, known.client_reported), (2, known.server_reported)):
            owner, before = whos[self.owners[side][at]], reported[slots]
            bad |= (self.owners[side][at] >= 0) & (before != None) & (before != owner)  # noqa: E711 - by element
        self.plain[at[bad]] = False

    def _exclude_addresses(self, book: AddressBook, others: Others, unclear: Mask) -> None:
        """Connections with an address whose owner becomes known in this chunk, if other rows ask for this owner."""
        pods = _PodNumbers(self.ends.whos)
        changed, learnt = self._addresses_in(others.changed), dict[int, PodFacts | None]()
        owned = self._owned(pods, np.ones(len(self.plain), np.bool_), book)
        for at, number in owned:
            pod = None if number < 0 else pods.pods[number]
            if number == -2 or (not book.knows(self.addresses[at], pod) and learnt.setdefault(at, pod) != pod):
                changed[at] = True
        if learnt or changed.any():
            begins = self.ends.side[self._firsts] != 2
            asked = self._addresses_in(others.asked)
            for addresses, asks in ((self.server_at, begins), (self.client_at, ~begins)):
                asked[addresses[(asks & (self.slot < 0)) | unclear | ~self.plain]] = True
            for addresses in (self.client_at, self.server_at):
                asked[addresses[~self.plain]] = True
            found = np.fromiter(learnt, np.int64, len(learnt))
            changed[found] |= asked[found]
            self.plain &= ~(changed[self.client_at] | changed[self.server_at])
        if not self.plain.all():
            owned = self._owned(pods, self.plain, book)
        for at, number in owned:
            if number >= 0:
                book.saw(self.addresses[at], pods.pods[number])

    def _owned(self, pods: "_PodNumbers", groups: Mask, book: AddressBook) -> list[tuple[int, int]]:
        """Places of addresses of these connections, and the numbers of the pods that own them, unless that is known
        already; -2: several owners."""
        found, size = [], len(pods.pods) + 2
        for side, addresses in ((1, self.client_at), (2, self.server_at)):
            owners = self.owners[side]
            numbers = np.where(owners >= 0, pods.numbers[owners], owners)
            at = groups & (numbers != -1)
            found.append(addresses[at] * size + numbers[at] + 2)
        pairs = different(np.concatenate(found))[0]
        ats, owning = np.divmod(pairs, size)
        texts, seen, pod_of = self.addresses[ats].tolist(), book.seen, pods.pods
        each = zip(texts, ats.tolist(), (owning - 2).tolist(), strict=True)
        return [(at, number) for ip, at, number in each if number == -2 or seen.get(ip) is not pod_of[number]]

    def _exclude_sequences(self, tables: Tables) -> None:
        """Connections that may be the same as another one whose client's address was translated."""
        wanted = np.flatnonzero((self.sequence != 0) & ((self.operation == CONNECT) | (self.operation == ACCEPT)))
        sequences, groups = self.sequence[wanted], self.group[wanted]
        order = np.lexsort((groups, sequences))
        same = (sequences[order][1:] == sequences[order][:-1]) & (groups[order][1:] != groups[order][:-1])
        self.plain[groups[order][1:][same]] = False
        self.plain[groups[order][:-1][same]] = False
        accepts = wanted[(self.operation[wanted] == ACCEPT) & (self.slot[groups] == -1)]
        found = list(map(tables.translated.get, self.sequence[accepts].tolist()))
        if any(at is not None for at in found):
            self.plain[self.group[accepts[[at is not None for at in found]]]] = False
            slots = [at for at in found if at.__class__ is int]
            self.plain &= ~np.isin(self.slot, slots)

    def begin(self, known: PlainConnections, book: AddressBook, positions: Integers) -> Begun:
        """Takes slots for new connections, in the order of their first rows."""
        is_new = self.plain & (self.slot == -1)
        new = np.flatnonzero(is_new)
        self.slot[new] = slots = known.take(len(new))
        firsts = self._firsts[new]
        known.first_ns[slots] = self.ends.time_ns[firsts]
        known.pins[slots] = 1
        words = self._words[new]
        known.client_v4[slots] = _ipv4(words[:, 0:2], words[:, 4] >> np.uint64(16))
        known.server_v4[slots] = _ipv4(words[:, 2:4], words[:, 4] & np.uint64(0xFFFF))
        known.one_address[slots] = self.client_at[new] == self.server_at[new]
        chosen = is_new.tolist()
        keys, clients = list(compress(self.keys, chosen)), list(compress(self.clients, chosen))
        known.key[slots] = _objects(keys)
        sides, who = self.ends.side[firsts] == 1, self.ends.who[firsts]
        own = np.where(sides, self.client_at[new], self.server_at[new])
        other = np.where(sides, self.server_at[new], self.client_at[new])
        whos, others, at = self.ends.whos[who], *self._others(book, own, other, who)
        for mine, of_own, reported, of_other in (
            (sides, known.client, known.client_reported, known.server),
            (~sides, known.server, known.server_reported, known.client),
        ):
            of_own[slots[mine]] = reported[slots[mine]] = whos[mine]
            of_other[slots[mine]] = others[at[mine]]
        has_pod = np.fromiter((other.pod is not None for other in others), np.bool_, len(others))
        known.compare_pods(slots[has_pod[at]])
        return Begun(positions[firsts], slots, keys, clients)

    def _others(
        self, book: AddressBook, own: Integers, other: Integers, who: Integers
    ) -> tuple[Objects, npt.NDArray[np.integer[Any]]]:
        """Who owns the other end of new connections, as far as it is known: the different owners, and the place of each
        connection's. `own` and `other` are addresses, and `who` owns the end that reports."""
        names = [who.name for who in self.ends.whos.tolist()]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        askers, count = np.fromiter(map(numbers.__getitem__, names), np.int64, len(names))[who], len(self.addresses)
        texts = list(numbers)
        if "" in numbers:
            askers = np.where(askers == numbers[""], len(texts) + own, askers)
            texts += map(address_name, self.addresses.tolist())
        pairs, at = different(askers * count + other)
        asking, asked = np.divmod(pairs, count)
        return _objects(book.find_all(self.addresses[asked].tolist(), pick(texts, asking))), at

    def own(self, known: PlainConnections) -> None:
        """Records the owners of ends that report for the first time."""
        at = np.flatnonzero(self.plain)
        for side, whos, reported in (
            (1, known.client, known.client_reported),
            (2, known.server, known.server_reported),
        ):
            owners = self.owners[side][at]
            slots, owners = self.slot[at][owners >= 0], owners[owners >= 0]
            first = reported[slots] == None  # noqa: E711 - by element
            slots, named = slots[first], self.ends.whos[owners[first]]
            memo: dict[tuple[int, int], Who] = {}
            merged = list[Who]()
            for before, later in zip(whos[slots].tolist(), named.tolist(), strict=True):
                pair = (id(before), id(later))
                if pair not in memo:
                    memo[pair] = before.and_then(later)
                merged.append(memo[pair])
            whos[slots], reported[slots] = _objects(merged), named
            known.compare_pods(slots)

    def apply(self, known: PlainConnections, positions: Integers, begun: Begun) -> Chosen:
        """Applies the rows, round by round."""
        ends = self.ends
        ranks = np.arange(len(self.order)) - self.starts[self.group]
        chosen = self.plain[self.group]
        new = np.zeros(known.size, np.bool_)
        new[begun.slot] = True
        places, slots_of, sents, receiveds = [], [], [], []
        ended, noted = [], []
        for number in range(int(np.max(ranks[chosen])) + 1):
            at = np.flatnonzero(chosen & (ranks == number))
            rows, slots, operation = self.order[at], self.slot[self.group[at]], self.operation[at]
            is_client = ends.side[rows] == 1
            known.by_client[slots] |= is_client
            known.by_server[slots] |= ~is_client
            timed = is_client & (ends.rtt[rows] >= 0)
            known.rtt[slots[timed]] = ends.rtt[rows[timed]]
            connects = (operation == CONNECT) & (self.sequence[at] != 0) & ~known.by_server[slots] & is_client
            noted.append((positions[rows[connects]], slots[connects], self.sequence[at[connects]]))
            counts = (operation == CLOSE) | (operation == REPORT)
            self._count(known, rows[counts], slots[counts], is_client[counts])
            speaks = is_client | ~known.by_client[slots]
            ends_now = (operation == CLOSE) & (known.ended_ns[slots] == 0)
            known.ended_ns[slots[ends_now]] = ends.time_ns[rows[ends_now]]
            ended.append((positions[rows[ends_now]], slots[ends_now]))
            begins = new[slots] & (number == 0) & ~counts
            shown = begins | ends_now | ((operation == REPORT) & speaks)
            places.append(rows[shown])
            slots_of.append(slots[shown])
            sents.append(known.sent[slots[shown]])
            receiveds.append(known.received[slots[shown]])
        rows = np.concatenate(places)
        order = np.argsort(rows)
        rows = rows[order]
        names: list[str] = list(map(_node_of, ends.whos.tolist()))
        nodes = {name: place for place, name in enumerate(dict.fromkeys(names))}
        events = PlainEvents(
            positions[rows],
            ends.time_ns[rows],
            np.concatenate(slots_of)[order],
            ends.operation[rows],
            ends.side[rows] == 1,
            np.fromiter(map(nodes.__getitem__, names), np.intp, len(names))[ends.who[rows]],
            ends.error[rows],
            ends.end[rows],
            ends.duration[rows],
            np.concatenate(sents)[order],
            np.concatenate(receiveds)[order],
            list(nodes),
            ends.errors,
            ends.ends,
        )
        mask = np.zeros(len(self.order), np.bool_)
        mask[self.order[chosen]] = True
        # The ended_ns of 0 means that it has not ended; a row has no such time.
        changes = Changes(begun, _in_order(ended), _in_order(noted))  # type: ignore[arg-type]
        known.pins[changes.ended[1]] += 1
        return Chosen(mask, events, changes)

    def _count(self, known: PlainConnections, rows: Integers, slots: Integers, is_client: Mask) -> None:
        ends = self.ends
        for one, other, to, back in (
            (ends.sent, ends.received, known.sent, known.received),
            (ends.sent_packets, ends.received_packets, known.sent_packets, known.received_packets),
        ):
            to[slots] = np.maximum(to[slots], np.where(is_client, one[rows], other[rows]))
            back[slots] = np.maximum(back[slots], np.where(is_client, other[rows], one[rows]))
        kept = is_client | ~known.by_client[slots]
        known.retransmits[slots[kept]] = ends.retransmits[rows[kept]]


def _ipv4(address: npt.NDArray[np.uint64], port: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Address and port as a number; 0 where it is not IPv4."""
    mapped = (address[:, 0] == 0) & (address[:, 1] & np.uint64(0xFFFFFFFF) == 0xFFFF0000)
    numbers = (address[:, 1] >> np.uint64(32)).astype(np.uint32).byteswap().astype(np.uint64)
    return np.where(mapped, numbers << np.uint64(16) | port, np.uint64(0))


class _PodNumbers:
    """Numbers of the pods of processes."""

    def __init__(self, whos: Objects) -> None:
        of_all = list(map(_pod_of, whos.tolist()))
        by_id = dict(zip(map(id, of_all), of_all, strict=True))
        self.pods = [pod for pod in by_id.values() if pod is not None]
        known = {id(pod): number for number, pod in enumerate(self.pods)}
        self.numbers = np.fromiter(map(known.get, map(id, of_all), repeat(-1)), np.int64, len(of_all))
        """by the place of a process; -1: it is in no pod"""


def _in_order(pieces: Sequence[tuple[Integers, ...]]) -> tuple[Integers, ...]:
    """The columns of all pieces, sorted by the first one."""
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    order = np.argsort(columns[0])
    return tuple(column[order] for column in columns)


_pod_of: Callable[[Who], PodFacts | None] = attrgetter("pod")
_node_of: Callable[[Who], str] = attrgetter("node")


def _objects(values: Sequence[Any]) -> Objects:
    return np.fromiter(values, object, len(values))
