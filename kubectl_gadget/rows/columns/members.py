"""The members of a gadget's JSON rows in their fixed order. Filters use the same names.

Order: the timestamp, then the gadget's columns as listed in its YAML; the members of one column are adjacent. The trap:
a filter may name every identity column, even one that the gadget does not show, so that filters do not break if a
gadget shows fewer columns.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kubectl_gadget.gadgets.schema import IDENTITY_COLUMNS, STRING_TYPES, Column, Field, Gadget, owner_source
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.kind import Kind, Member
from kubectl_gadget.rows.columns.kinds import kind_of
from kubectl_gadget.rows.columns.texts import CodedMarks, CodedTexts
from kubectl_gadget.rows.container_lookup import UNKNOWN, Owners
from kubectl_gadget.rows.vectors import Mask, Vector

_TIMESTAMP = "gadget_timestamp"
_NUMBERS_READ = ("gadget_asked_open_flags", "gadget_read_number")
"""32-bit typedefs whose highest value means that the number could not be read."""
LATE_MARK = "*"
"""Follows the time of a row that arrived after a younger row had been written."""


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
    """All names that a filter may use: the row's members and all identity columns."""
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
    """Where a text could not be read: its length is 1 (bpf/include/gadget/record.h)."""
    spans = batch.spans(field)
    unread: Mask = ~spans.readable & (spans.lengths == 0)
    return unread


def _unread_numbers(batch: Batch, field: Field) -> Mask:
    unread: Mask = batch.raw(field) == np.uint32(0xFFFFFFFF)
    return unread


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
