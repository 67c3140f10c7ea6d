"""The members of a gadget's JSON rows, which are also the names in filters, in their fixed order.

Order: the timestamp, then the gadget's columns as its YAML lists them; what belongs to one column stands together. The
trap: a filter may name every identity column, even one that the gadget does not show, and none of a user's filters may
break because a gadget shows fewer columns.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from kubectl_gadget.events.batch import STRING_TYPES, Batch
from kubectl_gadget.events.columns.kind import Kind, Member
from kubectl_gadget.events.columns.kinds import kind_of
from kubectl_gadget.events.columns.texts import CodedMarks, CodedTexts
from kubectl_gadget.events.identity import UNKNOWN, Owners
from kubectl_gadget.events.schema import IDENTITY_COLUMNS, Column, Field, Gadget, owner_source
from kubectl_gadget.events.vectors import Mask, Vector

_TIMESTAMP = "gadget_timestamp"
_NUMBERS_READ = ("gadget_asked_open_flags", "gadget_read_number")
"""Of 32 bits, which the highest one stands for where they could not be read."""
LATE_MARK = "*"
"""Beside the time of a row that came after a younger one had been written."""


def row_members(gadget: Gadget) -> tuple[Member, ...]:
    """The members of a JSON row, in order. Raises KeyError when a column names a field that the record has not."""
    return _row_members(_Key(gadget))


def column_members(gadget: Gadget, column: Column) -> tuple[Member, ...]:
    """The members that one column becomes."""
    if source := owner_source(column.field):
        named = _identity_member(column.name, column.field)
        return (named, _mark_member(column.name, source[0])) if source[1] == "container" else (named,)
    field = gadget.record.field(column.field)
    return kind_of(field).members(column.name, field)


def column_kind(gadget: Gadget, column: Column) -> Kind | None:
    """The kind of a column's field; None for those that come from the identity."""
    return None if owner_source(column.field) else kind_of(gadget.record.field(column.field))


def filter_members(gadget: Gadget) -> dict[str, Member]:
    """What a filter may name, by name: the row's members, and all identity columns."""
    found = {name: _identity_member(name, name) for name in IDENTITY_COLUMNS}
    found["container_mark"] = _mark_member("container", "cgroup")
    found.update((member.name, member) for member in row_members(gadget))
    return found


def unread_members(gadget: Gadget) -> dict[str, Callable[[Batch], Mask]]:
    """Members that may lack what could not be read, and where they do."""
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
    """A text that is not there has the length 1 (bpf/include/gadget/record.h)."""
    spans = batch.spans(field)
    unread: Mask = ~spans.readable & (spans.lengths == 0)
    return unread


def _unread_numbers(batch: Batch, field: Field) -> Mask:
    unread: Mask = batch.raw(field) == np.uint32(0xFFFFFFFF)
    return unread


def shown(batch: Batch, column: Column) -> list[str]:
    """A column as people see it, one text per row, not escaped yet. Names that do not exist are "-"."""
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
    """What identity.owner_source understands, for each row; without owners they are empty."""
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
    """Whether it is a sandbox, or a process that has left its container's cgroup; null for what is as usual."""

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
    """A gadget as a key of a cache: by identity, since its dicts cannot be hashed."""

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
