"""Rows that the client makes: DNS answers from packets, stories of processes, new facts.

A gadget whose rows the kernel cannot make names a view under `view:` in its YAML, the struct that its programs send
under `sent:`, and the struct of a row under `record:`. The view returns rows in the kernel's format, as records in ring
buffer bytes, so that all later steps (names, filters, order, output) are the same for every gadget. A view runs for
each connection to a node and keeps items that wait, so it must drop them: after a time by the node's own clock, and if
there are too many.
"""

import struct
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.schema import STRING_TYPES, About, Column, Field, Gadget, RecordLayout
from kubectl_gadget.rows.batch import Batch, Origins
from kubectl_gadget.rows.containers import UNKNOWN, Container, Owners
from kubectl_gadget.yaml_files import own_data


class Stage(ABC):
    """One view that runs for one node."""

    @abstractmethod
    def rows(self, sent: Batch, complete_until: int) -> bytes:
        """Makes rows from these records, in ring buffer format, approximately in order of time.

        `complete_until` is boot time in ns; every record before it has been passed in. It decides when rows for answers
        that did not come are made.
        """

    def rest(self) -> bytes:
        """Rows for all open items. It is the last call."""
        return b""


_STAGES = {
    "deadlock": "protocols.deadlock:Deadlock",
    "dns": "protocols.dns:Dns",
    "http": "protocols.http:Http",
    "sni": "protocols.tls:Sni",
    "tls": "protocols.handshake:Tls",
    "tty": "protocols.tty:Tty",
}
"""Module and class of each view; its arguments are the gadget and the values of all its parameters."""


def make_stage(gadget: Gadget, parameters: Mapping[str, object]) -> Stage | None:
    """A new stage of the gadget's view; None if it has none. `parameters` are those set by the user, by name.

    Raises GadgetError if this version has no such view.
    """
    if gadget.view is None:
        return None
    if gadget.view.name not in _STAGES:
        raise GadgetError(
            f"{gadget.name} needs the view {gadget.view.name!r}",
            f"one of {', '.join(_STAGES)}, or a newer version of this program",
        )
    values = gadget.values(parameters)
    module, _, name = _STAGES[gadget.view.name].partition(":")
    stage: Stage = getattr(import_module(f"kubectl_gadget.{module}"), name)(gadget, values)
    return stage


# Rows in the format of the kernel's records. A text's position has 16 bits and its length 15, so longer text is
# truncated and marked as such.


_CUT = 0x8000
_MOST_BYTES = 0x7FFF
_HEADER = struct.Struct("<II")
_TEXT = struct.Struct("<HH")
_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"} | {
    (1, True): "b",
    (2, True): "h",
    (4, True): "i",
    (8, True): "q",
}
_SIZES = {"gadget_timestamp": 8, "gadget_cgroup": 8, "gadget_bytes": 8, "bool": 1}
"""The sizes of types that do not have four bytes."""

Value = int | bytes | str | list[str] | None


class RowWriter:
    """Rows of one record layout: `add` rows, then `take` them. `of_processes` drops rows without a process."""

    def __init__(self, record: RecordLayout, of_processes: bool = False) -> None:
        self._of_processes = of_processes
        self._size = record.size
        self._fields = {field.name: field for field in record.fields}
        self._texts = [field for field in record.fields if field.type in STRING_TYPES]
        self._rows: list[bytes] = []

    def add(self, head: bytes, timestamp: int, values: dict[str, Value]) -> None:
        """Adds a row. `head` is the struct gadget_record of a record that the row is about. Fields that are not named,
        or None, are 0; such texts are absent."""
        if self._of_processes and not has_process(head):
            return
        row = bytearray(self._size)
        row[: len(head)] = head
        struct.pack_into("<Q", row, self._fields["timestamp"].offset, timestamp)
        for field in self._texts:
            _TEXT.pack_into(row, field.offset, 0, 1)
        for name, value in values.items():
            if value is not None:
                self._put(row, name, value)
        self._rows.append(_HEADER.pack(len(row), 0) + row + bytes(-len(row) % 8))

    def take(self) -> bytes:
        """The rows since the last call, as ring buffer bytes."""
        rows, self._rows = self._rows, []
        return b"".join(rows)

    def _put(self, row: bytearray, name: str, value: Value) -> None:
        field = self._fields[name]
        if field.type in STRING_TYPES:
            data = _encode(value)
            room = min(_MOST_BYTES, 0xFFFF - len(row))
            cut = _CUT if len(data) > room else 0
            _TEXT.pack_into(row, field.offset, len(row), min(len(data), room) | cut)
            row += data[:room]
        elif isinstance(value, int):
            struct.pack_into("<" + _CODES[field.size, field.signed], row, field.offset, value)
        elif isinstance(value, bytes):
            row[field.offset : field.offset + field.size] = value[: field.size].ljust(field.size, b"\0")
        else:
            raise TypeError(f"{name} cannot be {value!r}")


def has_process(head: bytes) -> bool:
    """True if a record's head (struct gadget_record) has a process; for a packet, its socket's."""
    return head[16:20] != b"\0\0\0\0"


def asks_for_process(parameters: Mapping[str, object]) -> bool:
    """True if the user selected processes. The kernel also passes packets of connections that no process has accepted
    yet; a row that never gets a process belongs to none of the selected ones."""
    return bool(parameters.get("pid") or parameters.get("comm"))


def _encode(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    items: Iterable[str] = value
    # NUL ends an element, so it cannot be part of one.
    return b"".join(item.replace("\0", "\ufffd").encode("utf-8", "surrogateescape") + b"\0" for item in items)


def made_gadget(path: Path) -> Gadget:
    """The gadget of a YAML file of this package, whose record exists only in the client. Its columns are fields of the
    record, or names of the container."""
    written = own_data(path)
    columns = tuple(
        Column(name, column.pop("title", name.upper().replace("_", " ")), name, **column)
        for name, column in written["columns"].items()
    )
    about, record = About(**written["about"]), _layout(written["name"], written["fields"])
    return Gadget(written["name"], tuple(written["command"]), about, record, columns)


def _layout(name: str, types: Mapping[str, str]) -> RecordLayout:
    made, offset = list[Field](), 0
    for field, type in types.items():
        size = _SIZES.get(type, 4)
        offset += -offset % size
        made.append(Field(field, offset, size, type, type == "gadget_exit_code"))
        offset += size
    return RecordLayout(name, (offset + 7) // 8 * 8, tuple(made))


def place(batch: Batch, nodes: Iterable[str], containers: Iterable[Container]) -> None:
    """Gives such rows their nodes and containers. Their times are wall times already."""
    of_node, node = np.unique(np.array(list(nodes), object), return_inverse=True)
    known = {UNKNOWN: 0}
    batch.owners = Owners(np.array([known.setdefault(item, len(known)) for item in containers], np.intp), list(known))
    batch.origins = Origins(node, of_node.tolist(), np.zeros(len(batch), np.int64))


# What a view keeps until its answer comes, until a time limit, or until too many wait.

T = TypeVar("T", bound=Hashable)


class PendingItems(Generic[T]):
    """Items in the order in which they began to wait. Each is kept once, compared by identity or by its own
    equality."""

    def __init__(self, most: int = 65536) -> None:
        self._most = most
        self._since: OrderedDict[T, int] = OrderedDict()

    def add(self, thing: T, time: int) -> None:
        self._since[thing] = time

    def done(self, thing: T) -> None:
        """Remove the item, if present."""
        self._since.pop(thing, None)

    def expired(self, before: int) -> Iterator[T]:
        """Removes and yields items that have waited since `before` or longer, and the oldest if there are too many."""
        while self._since:
            thing, since = next(iter(self._since.items()))
            if since > before and len(self._since) <= self._most:
                return
            del self._since[thing]
            yield thing

    def rest(self) -> Iterator[T]:
        while self._since:
            yield self._since.popitem(last=False)[0]
