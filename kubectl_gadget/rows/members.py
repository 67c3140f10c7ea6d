"""The kind of each field, and the members of a gadget's JSON rows in their fixed order. Filters use the same names.

Order: the timestamp, then the gadget's columns as listed in its YAML; the members of one column are adjacent. A filter
may name every identity column, even one that the gadget does not show, so that filters do not break if a gadget shows
fewer columns.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kubectl_gadget.errors import FrameError, UsageError
from kubectl_gadget.gadgets.schema import (
    IDENTITY_COLUMNS,
    STRING_TYPES,
    Column,
    Field,
    Gadget,
    field_of,
    is_peer,
    owner_source,
)
from kubectl_gadget.linux.names import (
    SIGNAL_NAMES,
    capability_name,
    capability_names,
    capability_summary,
    family_name,
    icmp_type_name,
    namespace_kind_names,
    namespace_names,
    protocol_name,
    signal_name,
    signal_set_names,
    tcp_flag_names,
    tcp_state_name,
)
from kubectl_gadget.rows.amounts import Timestamps, bytes_text, duration_text
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import UNKNOWN, Owners
from kubectl_gadget.rows.gadget_kinds import FILE_KINDS, GADGET_KINDS
from kubectl_gadget.rows.histogram import BUCKETS_TYPE, Buckets, spark_line
from kubectl_gadget.rows.kinds import (
    ENUM,
    FIXED_TEXT,
    FLAGS,
    NUMBER,
    TEXT_KINDS,
    UNREAD,
    Kind,
    Member,
    ObjectField,
    addresses,
    coded,
    ids,
    known,
    known_numbers,
    maybe,
    pids,
    single,
    spelt_with_raw,
    text_kind,
)
from kubectl_gadget.rows.peers import PEER
from kubectl_gadget.rows.stacks import STACK, digests, innermost_functions, show_stacks, stack_lists
from kubectl_gadget.rows.texts import CodedMarks, CodedTexts, Texts
from kubectl_gadget.rows.vectors import Booleans, Mask, SomeNumbers, Vector
from kubectl_gadget.wire.policy_events import read_exec_id

# The kind of each typedef of docs/design/records.md (KINDS). A field whose typedef has no entry is shown by its C type.
# Note: names from the YAML or from a C enum take precedence over the typedef.


def _capabilities(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, capability_names)


def _exec_ids(batch: Batch, field: Field) -> Texts:
    def spell() -> list[str | None]:
        found = [read_exec_id(raw) for raw in batch.raw(field).tolist()]
        return [item and item.text(node) for item, node in zip(found, batch.nodes(), strict=True)]

    return Texts(spell, len(batch))


def _timestamps(batch: Batch, field: Field) -> Timestamps:
    return Timestamps(batch.to_wall(batch.raw(field)))


KINDS: dict[str, Kind] = {
    **TEXT_KINDS,
    **FILE_KINDS,
    **GADGET_KINDS,
    "gadget_timestamp": single("text", _timestamps, lambda batch, field: _timestamps(batch, field).clock()),
    "gadget_cgroup": NUMBER,
    "gadget_pid": maybe(pids),
    "gadget_uid": maybe(ids),
    "gadget_gid": maybe(ids),
    "gadget_signal": spelt_with_raw(signal_name, none="-", names=SIGNAL_NAMES),
    "gadget_signals": spelt_with_raw(signal_set_names),
    "gadget_capability": spelt_with_raw(capability_name),
    "gadget_capabilities": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: _capabilities(batch, field)),
            Member(f"{column}_raw", "int", lambda batch: known_numbers(batch, field)),
        ),
        lambda batch, field: [text or UNREAD for text in coded(batch, field, capability_summary).texts()],
    ),
    "gadget_namespaces": spelt_with_raw(namespace_names, none="-"),
    "gadget_namespace_kinds": spelt_with_raw(namespace_kind_names, none="-"),
    "gadget_duration": known(duration_text),
    "gadget_bytes": known(bytes_text),
    "gadget_number": known(str),
    BUCKETS_TYPE: single(
        "buckets",
        lambda batch, field: Buckets(batch.raw(field)),
        lambda batch, field: list(map(spark_line, batch.raw(field))),
    ),
    "gadget_offset": known(str),
    "gadget_ip": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: batch.vector(column, lambda batch: addresses(batch, field))),
        ),
        lambda batch, field: [text or "-" for text in addresses(batch, field).texts()],
    ),
    "gadget_port": NUMBER,
    "gadget_exec_id": text_kind(_exec_ids),
    "gadget_address_family": spelt_with_raw(family_name),
    "gadget_ip_protocol": spelt_with_raw(protocol_name),
    "gadget_icmp_type": spelt_with_raw(icmp_type_name),
    "gadget_tcp_state": spelt_with_raw(tcp_state_name),
    "gadget_tcp_flags": spelt_with_raw(tcp_flag_names),
    "gadget_tcp_sequence": maybe(lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) != 0)),
    STACK: single("texts", stack_lists, show_stacks),
    "gadget_content": text_kind(digests),
    "gadget_innermost": text_kind(lambda batch, field: innermost_functions(batch)),
    "bool": single(
        "bool",
        lambda batch, field: Booleans(batch.raw(field) != 0),
        lambda batch, field: ["true" if value else "false" for value in batch.raw(field).tolist()],
    ),
}
KINDS["_Bool"] = KINDS["bool"]


def kind_of(field: Field) -> Kind:
    """The kind of a field: by names from the YAML or a C enum, else by its typedef, else by its C type.

    By C type, an array of chars is a text and anything else is a number.
    """
    if isinstance(field, ObjectField) and field.kind is not None:
        return field.kind
    if field.flags:
        return FLAGS
    found = PEER if is_peer(field) else KINDS.get(field.type)
    if found is not None:
        return found
    if field.values:
        return ENUM
    return NUMBER if field.size in (1, 2, 4, 8) and not field.type.startswith("char") else FIXED_TEXT


# Members and columns.


_TIMESTAMP = "gadget_timestamp"
_NUMBERS_READ = ("gadget_asked_open_flags", "gadget_read_number")
"""32-bit typedefs whose highest value means that the number could not be read."""
LATE_MARK = "*"
"""Follows the time of a row that arrived after a younger row had been written."""


def find_column(gadget: Gadget, name: str) -> Column | None:
    """A gadget's column with that name, or an identity column, which every gadget has."""
    for column in gadget.columns:
        if column.name == name:
            return column
    return Column(name, name.upper(), name, "", width=16) if name in IDENTITY_COLUMNS else None


def row_members(gadget: Gadget) -> tuple[Member, ...]:
    """The members of a JSON row, in order. Raises KeyError if a column names a field that the record does not have."""
    return _row_members(_Key(gadget))


def column_members(gadget: Gadget, column: Column) -> tuple[Member, ...]:
    if source := owner_source(column.field):
        named = _identity_member(column.name, column.field)
        return (named, _mark_member(column.name, source[0])) if source[1] == "container" else (named,)
    field = gadget.record.field(column.field)
    return kind_of(field).members(column.name, field)


def column_kind(gadget: Gadget, column: Column) -> Kind | None:
    """The kind of a column's field; None for identity columns."""
    return None if owner_source(column.field) else kind_of(gadget.record.field(column.field))


def filter_members(gadget: Gadget) -> dict[str, Member]:
    """All names that a filter may use: the row's members and all identity columns. Rows that are objects have no
    containers of their own."""
    found = dict[str, Member]()
    if not any(isinstance(field, ObjectField) for field in gadget.record.fields):
        found = {name: _identity_member(name, name) for name in IDENTITY_COLUMNS}
        found["container_mark"] = _mark_member("container", "cgroup")
    found.update((member.name, member) for member in row_members(gadget))
    return found


def member_values(batch: Batch, name: str) -> list[Any]:
    """A member as in JSON, for each row."""
    member = filter_members(batch.gadget)[name]
    return batch.vector(member.name, member.read).values()


def unread_members(gadget: Gadget) -> dict[str, Callable[[Batch], Mask]]:
    """Members whose values may be unreadable, each with a function that returns the unreadable rows."""
    found: dict[str, Callable[[Batch], Mask]] = {}
    for column in gadget.columns:
        if owner_source(column.field):
            continue
        field = gadget.record.field(column.field)
        if field.type in STRING_TYPES:
            mask = partial(_unread_spans, field=field)
        elif field.type in _NUMBERS_READ:
            mask = partial(_unread_numbers, field=field)
        else:
            continue
        found.update((member.name, mask) for member in column_members(gadget, column))
    return found


def _unread_spans(batch: Batch, field: Field) -> Mask:
    """Return a mask of the texts that could not be read: their length is 1 (bpf/include/gadget/record.h)."""
    spans = batch.spans(field)
    unread: Mask = ~spans.readable & (spans.lengths == 0)
    return unread


def _unread_numbers(batch: Batch, field: Field) -> Mask:
    unread: Mask = batch.raw(field) == np.uint32(0xFFFFFFFF)
    return unread


def check_readable(gadget: Gadget, source: str) -> None:
    """Reads every column of an empty record. Raises UsageError, which names the column that cannot be read."""

    room = gadget.record.size + -gadget.record.size % 8
    data = gadget.record.size.to_bytes(8, "little") + bytes(room)
    try:
        rows = decode(gadget, "", data)
        rows.cgroups()
    except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{source}: struct {gadget.record.struct} cannot be read: {error!r}") from None
    for column in gadget.columns:
        try:
            shown(rows, column)
            for member in column_members(gadget, column):
                template, values = member.read(rows).json()
                template % tuple(value[0] for value in values)
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            field = gadget.record.field(field_of(column))
            raise UsageError(
                f"{source}: column {column.name} cannot be read: field {field.name} has {field.size} bytes, and its"
                f" type is {field.type}"
            ) from None


def shown(batch: Batch, column: Column) -> list[str]:
    """A column's texts in tables, one per row, not escaped yet. Missing names are "-"."""
    if source := owner_source(column.field):
        vector = owner_texts(batch, column.field)
        words = [word or "-" for word in vector.words]
        if source[1] == "container" and (owners := _owners(batch, source[0])) is not None:
            moved = [container.moved for container in owners.containers]
            words = [f"{word}(moved)" if is_moved else word for word, is_moved in zip(words, moved, strict=True)]
        return CodedTexts(vector.codes, words).values()
    field = batch.gadget.record.field(column.field)
    texts = kind_of(field).show(batch, field)
    if batch.late is not None and field.type == _TIMESTAMP:
        texts = [f"{text}{LATE_MARK}" if late else text for text, late in zip(texts, batch.late.tolist(), strict=True)]
    return texts


def owner_texts(batch: Batch, source: str) -> CodedTexts:
    """Names for a source as in identity.owner_source, one per row; empty if the batch has no owners."""
    party, name = owner_source(source) or ("", source)
    if name == "node":
        if batch.origins is not None:
            return CodedTexts(batch.origins.codes, batch.origins.nodes)
        return CodedTexts(np.zeros(len(batch), np.intp), [batch.node])
    owners = _owners(batch, party)
    if owners is None:
        return CodedTexts(np.zeros(len(batch), np.intp), [getattr(UNKNOWN, name)])
    return CodedTexts(owners.codes, [getattr(container, name) for container in owners.containers])


def _owners(batch: Batch, party: str) -> Owners | None:
    return batch.owners if party == "cgroup" else batch.parties.get(party)


def _mark_member(column: str, party: str) -> Member:
    """Marks a sandbox, or a process that has left its container's cgroup; null otherwise."""

    def read(batch: Batch) -> Vector:
        owners = _owners(batch, party)
        if owners is None:
            return CodedMarks(np.zeros(len(batch), np.intp), [None])
        return CodedMarks(owners.codes, [container.container_mark for container in owners.containers])

    return Member(f"{column}_mark", "text", read, optional=True)


def _identity_member(name: str, source: str) -> Member:
    def read(batch: Batch) -> Vector:
        return owner_texts(batch, source)

    return Member(name, "text", read)


class _Key:
    """A gadget as a cache key, compared by object identity because its dicts cannot be hashed."""

    def __init__(self, gadget: Gadget) -> None:
        self.gadget = gadget

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.gadget is other.gadget

    def __hash__(self) -> int:
        return id(self.gadget)


@lru_cache(maxsize=128)
def _row_members(key: _Key) -> tuple[Member, ...]:
    gadget = key.gadget
    columns = sorted(gadget.columns, key=lambda column: not _is_time(gadget, column))
    return tuple(member for column in columns for member in column_members(gadget, column))


def _is_time(gadget: Gadget, column: Column) -> bool:
    return owner_source(column.field) is None and gadget.record.field(column.field).type == _TIMESTAMP
