"""Reads one node's ring buffer bytes as columns.

Finding the start of each record is the only loop over records (docs/protocol.md, EVENTS); everything else works on
whole columns, and only on the fields that are asked for. The bytes come from another machine, so every length
and every string's position is checked here once; code that reads columns later may trust them. The module
is long, since these checks stand beside what reads the bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import FrameError
from kubectl_gadget.gadgets.schema import STRING_TYPES, Field, Gadget
from kubectl_gadget.rows.containers import UNKNOWN, Container, Judge, Owners, join_owners
from kubectl_gadget.rows.vectors import Array, Integers, Vector

if TYPE_CHECKING:
    from kubectl_gadget.kube.addresses import Addresses

Mask = npt.NDArray[np.bool_]

_LENGTH = (1 << 30) - 1
_DISCARDED = 1 << 30
_BUSY = 1 << 31
_HEADER = 8
_MOST_SHORT = 1024
"""Records shorter than the gadget's that are looked at: discarded ones may be. In 64 MiB there could be 8 million."""

ARRAY_TYPES = frozenset({"gadget_buckets"})
"""Typedefs of arrays of u64, which are read as one row of numbers per record."""
TURN = "turn"
"""The field that is given to rows of a snapshot: the number of the snapshot in its stream, from 0."""


class Spans(NamedTuple):
    """Positions of one field's texts. All arrays have one element per row."""

    starts: Integers
    """in bytes from the start of the buffer"""
    lengths: Integers
    readable: Mask
    """False: the BPF program could not read the text"""
    cut: Mask


class Origins(NamedTuple):
    """The nodes that the rows of a joined batch come from. Arrays have one element per row."""

    codes: npt.NDArray[np.intp]
    nodes: Sequence[str]
    """the node of a row is `nodes[codes[row]]`"""
    clock_offsets_ns: npt.NDArray[np.int64]

    def select(self, rows: Array) -> "Origins":
        """The origins of some rows, given as indices or as a mask."""
        return Origins(self.codes[rows], self.nodes, self.clock_offsets_ns[rows])


class Buffer:
    """Bytes shared by several selections of one batch."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.bytes = np.frombuffer(data, np.uint8)

    @cached_property
    def latin1(self) -> str:
        """The bytes as text with one character per byte; slicing it is the fastest way to many short ASCII texts."""
        return str(self.bytes.data, "latin-1")

    def integers(self, size: int, signed: bool) -> Integers:
        """The bytes as little-endian integers of `size` bytes; the buffer's size is a multiple of 8."""
        return self.bytes.view(f"<{'i' if signed else 'u'}{size}")

    def windows(self, size: int) -> npt.NDArray[np.bytes_]:
        """For each byte, the `size` bytes that start there, as long as that many are left."""
        return np.ndarray((max(0, len(self.bytes) - size + 1),), f"S{size}", self.bytes, strides=(1,))


class Batch:
    """Some rows of one gadget on one node. Columns are read on first use and then cached.

    `join` combines batches of several nodes; the result has `origins`, and its `node` is empty. `owners` and
    `clock_offset_ns` are set later: the containers of the rows (containers.Identity.lookup), and the difference
    between wall time and boot time (clock.NodeClock.offset_ns). `parties` holds the owners of further gadget_cgroup
    fields by field name, such as the receiver of a signal. `late` marks rows that arrived after a younger row had been
    released (merge.TimeMerge); None means no row. `addresses` returns the cluster's present view of addresses; None:
    the run names none.
    """

    def __init__(
        self,
        gadget: Gadget,
        node: str,
        buffer: Buffer,
        starts: Integers,
        *,
        architecture: str = "x86_64",
        owners: Owners | None = None,
        parties: Mapping[str, Owners] | None = None,
        clock_offset_ns: int = 0,
        origins: Origins | None = None,
        given: Mapping[str, Array] | None = None,
        late: Mask | None = None,
        addresses: "Callable[[], Addresses] | None" = None,
    ) -> None:
        self.gadget = gadget
        self.node = node
        self.buffer = buffer
        self.starts = starts
        """offset of each record in the buffer, in bytes, after the ring buffer's own header"""
        self.architecture = architecture
        self.owners = owners
        self.parties: dict[str, Owners] = dict(parties or {})
        self.clock_offset_ns = clock_offset_ns
        self.origins = origins
        self.late = late
        self.addresses = addresses
        self.peers: dict[str, Any] = {}
        """the peers that were looked up, by field (peers.py)"""
        self._given = dict(given or {})
        self._raw: dict[str, Array] = dict(self._given)
        self._vectors: dict[str, Vector] = {}
        self._units: dict[int, Integers] = {}

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def nbytes(self) -> int:
        """Approximate memory that this batch keeps alive, in bytes."""
        return int(self.buffer.bytes.nbytes + self.starts.nbytes)

    def select(self, rows: Integers | Mask) -> "Batch":
        """The rows at these indices, or where this mask is true, in that order. Shares the bytes."""
        return Batch(
            self.gadget,
            self.node,
            self.buffer,
            self.starts[rows],
            architecture=self.architecture,
            owners=None if self.owners is None else self.owners.select(rows),
            parties={name: owners.select(rows) for name, owners in self.parties.items()},
            clock_offset_ns=self.clock_offset_ns,
            origins=None if self.origins is None else self.origins.select(rows),
            given={name: values[rows] for name, values in self._given.items()},
            late=None if self.late is None else self.late[rows],
            addresses=self.addresses,
        )

    def give(self, field: str, values: Array) -> None:
        """Sets a field of all rows to computed values that the records do not contain: sums, quotients."""
        self._given[field] = self._raw[field] = values
        self._vectors.clear()

    def compacted(self) -> "Batch":
        """The same rows in their own buffer if they use less than half of the shared one; otherwise the batch itself.

        A filter may leave one row of a 4 MiB buffer; rows that wait for other nodes must not keep all of it in memory.
        """
        if len(self.starts) * self.gadget.record.size * 2 > self.buffer.bytes.nbytes:
            return self
        sizes = (self.buffer.integers(4, signed=False)[self.starts // 4 - 2].astype(np.int64) & _LENGTH) + _HEADER
        sizes = (sizes + 7) & ~7
        total = int(sizes.sum())
        if total * 2 > self.buffer.bytes.nbytes:
            return self
        ends = np.cumsum(sizes)
        heads = ends - sizes
        # In words, since an index takes eight bytes; records begin and end at multiples of them.
        sources = np.arange(total // 8) + np.repeat((self.starts - _HEADER - heads) // 8, sizes // 8)
        return Batch(
            self.gadget,
            self.node,
            Buffer(self.buffer.integers(8, signed=False)[sources].tobytes()),
            heads + _HEADER,
            architecture=self.architecture,
            owners=self.owners,
            parties=self.parties,
            clock_offset_ns=self.clock_offset_ns,
            origins=self.origins,
            given=self._given,
            late=self.late,
            addresses=self.addresses,
        )

    def raw(self, field: str | Field) -> Array:
        """A fixed-size field as stored in the record: integers, or byte strings (`S16`) for arrays
        other than ARRAY_TYPES. Raises KeyError."""
        found = self._raw.get(field if isinstance(field, str) else field.name)
        if found is None:
            place = self.gadget.record.field(field) if isinstance(field, str) else field
            found = self._raw[place.name] = self._gather(place)
        return found

    def raw_of_type(self, type: str) -> Integers:
        """The first field with this typedef, such as gadget_cgroup. Raises KeyError if the record has none."""
        for field in self.gadget.record.fields:
            if field.type == type:
                return self.raw(field)
        raise KeyError(type)

    def cgroups(self) -> Integers:
        """Cgroup ids, for containers.Identity.lookup. Raises KeyError if the record has none."""
        return self.raw_of_type("gadget_cgroup")

    def name_owners(self, lookup: Callable[[Integers], Owners]) -> None:
        """Sets `owners` and `parties` with `lookup`, the containers.Identity.lookup of the batch's node."""
        self.owners = lookup(self.cgroups())
        cgroups = [field for field in self.gadget.record.fields if field.type == "gadget_cgroup"]
        self.parties = {field.name: lookup(self.raw(field)) for field in cgroups[1:]}

    def judged(self, judge_on: Callable[[str], Judge]) -> npt.NDArray[np.int8]:
        """Return for each row the highest result of its node's judge, over its container and the containers of other
        parties.

        A party's cgroup 0 means that there is no such party; its result is 0.
        """
        assert self.owners is not None
        if self.origins is None:
            judge = judge_on(self.node)
            judged = partial(Owners.judged, judge=judge)
        else:
            judges = [judge_on(node) for node in self.origins.nodes]
            judged = partial(Owners.judged_by, judges=judges, places=self.origins.codes)
        best = judged(self.owners)
        for name, owners in self.parties.items():
            best = np.maximum(best, np.where(self.raw(name) == 0, np.int8(0), judged(owners)))
        return best

    def nodes(self) -> list[str]:
        if self.origins is None:
            return [self.node] * len(self)
        return list(map(self.origins.nodes.__getitem__, self.origins.codes.tolist()))

    def row_containers(self) -> list[Container]:
        """The container of each row; UNKNOWN where it is not known yet."""
        if self.owners is None:
            return [UNKNOWN] * len(self)
        return list(map(self.owners.containers.__getitem__, self.owners.codes.tolist()))

    def wall_ns(self) -> npt.NDArray[np.int64]:
        """Wall time of each row in ns since 1970. Raises KeyError if the record has no timestamp."""
        return self.to_wall(self.raw_of_type("gadget_timestamp"))

    def to_wall(self, boot_ns: Integers) -> npt.NDArray[np.int64]:
        """Converts boot times, one per row, to wall times in ns."""
        return boot_ns.astype(np.int64) + (
            self.clock_offset_ns if self.origins is None else self.origins.clock_offsets_ns
        )

    def spans(self, field: Field) -> Spans:
        """Positions of the texts of a field whose type is in STRING_TYPES."""
        return _spans(self, field)

    def vector(self, name: str, read: "Callable[[Batch], Vector]") -> Vector:
        """The result of `read` for this batch, cached by name."""
        found = self._vectors.get(name)
        if found is None:
            found = self._vectors[name] = read(self)
        return found

    def forget_columns(self) -> None:
        """Drops the cached columns: some refer to the batch, which would then live until Python looks for cycles."""
        self.peers.clear()
        self._vectors.clear()

    def _starts_in(self, size: int) -> Integers:
        """`starts` in units of `size` bytes, a divisor of 8."""
        found = self._units.get(size)
        if found is None:
            found = self._units[size] = self.starts >> (size.bit_length() - 1)
        return found

    def _gather(self, field: Field) -> Array:
        size, offset = field.size, field.offset
        if size in (1, 2, 4, 8) and offset % size == 0 and not field.type.startswith("char"):
            # Records start at multiples of 8, so the place in the record only shifts the array.
            return self.buffer.integers(size, field.signed)[offset // size :][self._starts_in(size)]
        found = self.buffer.windows(size)[self.starts + offset]
        if field.type in ARRAY_TYPES:
            return found.view("<u8").reshape(len(found), size // 8)
        if size in (1, 2, 4, 8) and not field.type.startswith("char"):
            return found.view(f"<{'i' if field.signed else 'u'}{size}")
        return found


def decode(
    gadget: Gadget,
    node: str,
    data: bytes | memoryview,
    *,
    architecture: str = "x86_64",
    bounds: Integers | None = None,
) -> Batch:
    """Decodes ring buffer bytes into records; discarded records are skipped.

    `data` is what follows the head of an EVENTS frame, or of several, which then start at `bounds` (in bytes);
    `architecture` is the node's, as given in HELLO. Raises FrameError, which names the node, if the bytes are not whole
    records of this gadget.
    """
    if len(data) % 8:
        raise _broken(gadget, node, f"{len(data)} bytes of records are not a multiple of 8")
    buffer = Buffer(data)
    words = buffer.integers(8, signed=False)
    headers = _find_headers(words, data, _MOST_SHORT + len(words) // ((gadget.record.size + _HEADER + 7) >> 3))
    if headers is None:
        raise _broken(gadget, node, f"its records are shorter than {gadget.record.size} bytes")
    if len(headers) == 0:
        return Batch(gadget, node, buffer, headers, architecture=architecture)
    if bounds is not None and not np.isin(bounds // 8, headers, assume_unique=True).all():
        raise _broken(gadget, node, "a record reaches beyond its frame")
    heads = words[headers]
    lengths = (heads & np.uint64(_LENGTH)).astype(np.int64)
    end = int(headers[-1]) * 8 + _HEADER + int(lengths[-1])
    if end > len(data):
        raise _broken(gadget, node, f"the last record ends at byte {end} of {len(data)}")
    flags = int(np.bitwise_or.reduce(heads))  # type: ignore[call-overload]
    if flags & _BUSY:
        raise _broken(gadget, node, "a record was sent before the program had finished it")
    if flags & _DISCARDED:
        kept = (heads & np.uint64(_DISCARDED)) == 0
        headers, lengths = headers[kept], lengths[kept]
    if len(lengths) and int(np.min(lengths)) < gadget.record.size:
        raise _broken(
            gadget, node, f"a record of {np.min(lengths)} bytes; it should have at least {gadget.record.size}"
        )
    batch = Batch(gadget, node, buffer, headers * 8 + _HEADER, architecture=architecture)
    for field in gadget.record.fields:
        if field.type in STRING_TYPES:
            _check_spans(batch, field, lengths)
    return batch


def blanked(data: bytes | memoryview, rows: Batch) -> bytes:
    """Return the ring buffer bytes of a batch without the contents of these rows, which are marked as discarded."""
    made = np.frombuffer(data, np.uint8).copy()
    heads = made.view("<u4")
    for start in rows.starts.tolist():
        place = (start - _HEADER) // 4
        made[start : start + (int(heads[place]) & _LENGTH)] = 0
        heads[place] |= _DISCARDED
    return made.tobytes()


def join(batches: Sequence[Batch]) -> Batch:
    """Concatenates batches of one gadget and one architecture into one batch, keeping their order.

    Reading a column costs the same for ten rows as for a thousand, and a thousand nodes send small batches.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    small = [batch.compacted() for batch in batches]
    sizes = np.array([len(batch) for batch in small])
    bases = np.cumsum([0, *(batch.buffer.bytes.nbytes for batch in small)])
    return Batch(
        first.gadget,
        "",
        Buffer(np.concatenate([batch.buffer.bytes for batch in small]).data),
        np.concatenate([batch.starts for batch in small]) + np.repeat(bases[:-1], sizes),
        architecture=first.architecture,
        owners=join_owners([(batch.owners, len(batch)) for batch in small]),
        parties={
            name: join_owners([(batch.parties.get(name), len(batch)) for batch in small]) for name in first.parties
        },
        origins=_join_origins(small),
        given={name: np.concatenate([batch.raw(name) for batch in small]) for name in first._given},
        late=_join_late(small),
        addresses=first.addresses,
    )


def _join_late(batches: Sequence[Batch]) -> Mask | None:
    if all(batch.late is None for batch in batches):
        return None
    return np.concatenate([np.zeros(len(batch), np.bool_) if batch.late is None else batch.late for batch in batches])


def _join_origins(batches: Sequence[Batch]) -> Origins:
    """Origins of the joined rows; the batches may themselves be joined."""
    each = [
        batch.origins
        or Origins(np.zeros(len(batch), np.intp), [batch.node], np.full(len(batch), batch.clock_offset_ns, np.int64))
        for batch in batches
    ]
    nodes = list(dict.fromkeys(node for origins in each for node in origins.nodes))
    numbers = {node: number for number, node in enumerate(nodes)}
    codes = [np.array([numbers[node] for node in origins.nodes], np.intp)[origins.codes] for origins in each]
    return Origins(np.concatenate(codes), nodes, np.concatenate([origins.clock_offsets_ns for origins in each]))


def _find_headers(words: Integers, data: bytes | memoryview, most: int) -> npt.NDArray[np.int64] | None:
    """Offset of each header, in words of 8 bytes; computed if all records have the length of the first one. None if
    there are more than `most`: no memory is taken for them."""
    if len(words):
        length = int(words[0]) & _LENGTH
        if len(words) // ((length + _HEADER + 7) >> 3) > most:
            return None
        every = words[:: (length + _HEADER + 7) >> 3] & np.uint64(_LENGTH)
        if (every == length).all():
            return np.arange(len(every)) * ((length + _HEADER + 7) >> 3)
    headers = _walk(memoryview(data), most)
    return None if len(headers) > most else np.array(headers, np.int64)


def _walk(data: memoryview, most: int) -> list[int]:
    """Offset of each header, in words of 8 bytes, up to one more than `most`. A header is at least one word, so the
    loop always ends."""
    words = data.cast("B").cast("Q")
    end, position = len(words), 0
    headers: list[int] = []
    append = headers.append
    while position < end and len(headers) <= most:
        append(position)
        position += ((words[position] & _LENGTH) + _HEADER + 7) >> 3
    return headers


def _spans(batch: Batch, field: Field) -> Spans:
    pairs = batch.raw(Field(field.name, field.offset, 4, "u32")).astype(np.int64)
    offsets = pairs & 0xFFFF
    return Spans(batch.starts + offsets, (pairs >> 16) & 0x7FFF, offsets != 0, (pairs >> 31) != 0)


def _check_spans(batch: Batch, field: Field, lengths: Integers) -> None:
    if not (batch.raw(Field(field.name, field.offset, 4, "u32")) & np.uint32(0xFFFF)).any():
        return  # no record has this text
    spans = _spans(batch, field)
    ends = spans.starts - batch.starts + spans.lengths
    if ((ends > lengths) & spans.readable).any():
        raise _broken(batch.gadget, batch.node, f"the text of {field.name} reaches beyond its record")


def _broken(gadget: Gadget, node: str, why: str) -> FrameError:
    return FrameError(f"{node}: {gadget.name}: {why}")
