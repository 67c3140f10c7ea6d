"""The kinds of values: the members that a column becomes in JSON and filters, and its text in a table.

The rule for names: the member with the column's own name holds the main value; if both a number and its name are
useful, there are two members. So `errno` is a number with the name in `error`, and `flags` is a text with the number in
`flags_raw`. No value is invented; what could not be read is null.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.names import Namer, address_text, flag_names
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.shapes import Shape
from kubectl_gadget.rows.texts import (
    CodedMarks,
    CodedTexts,
    FixedTexts,
    Inputs,
    Nulls,
    SpanTexts,
    SpeltTexts,
    TextLists,
    Texts,
)
from kubectl_gadget.rows.vectors import Booleans, KnownNumbers, Mask, Numbers, SomeNumbers, Type, Vector, different

UNREAD = "-"
"""In tables: the BPF program could not read this text, or was not asked to."""
CUT = "…"
Show = Callable[[Batch, Field], list[str]]
Read = Callable[[Batch], Vector]


@dataclass(frozen=True)
class Member:
    """One member of a JSON row, and one name in filters."""

    name: str
    type: Type
    read: Read
    optional: bool = False
    """left out of a JSON row if it is false or null"""
    names: tuple[str, ...] = ()
    """of a text: all values that it can have, besides an empty text and numbers without a name; empty: any text"""
    shape: Shape | None = None
    """for filters, if its type does not say all"""


@dataclass(frozen=True)
class Kind:
    """The reader of one typedef. `members` takes the column's name; `show` returns texts that are not escaped yet."""

    members: Callable[[str, Field], tuple[Member, ...]]
    show: Show
    alarm: bool = False
    """values other than 0 are errors, which tables show in red"""


@dataclass(frozen=True)
class ObjectField(Field):
    """A field of rows that are objects of the client, not records: its kind reads the objects."""

    kind: Kind | None = None


def coded(batch: Batch, field: Field, spell: Callable[[int], str]) -> CodedTexts:
    """Names of numbers. Many rows have few different numbers, so `spell` is called once for each of them."""
    numbers, codes = different(batch.raw(field))
    return CodedTexts(codes, [spell(number) for number in numbers.tolist()] or [""])


def numbers(batch: Batch, field: Field) -> Numbers:
    return Numbers(batch.raw(field))


def some_texts(known: Mask, batch: Batch, spell: Callable[[], CodedTexts]) -> Texts:
    """Coded texts that are null where `known` is false. As fast as CodedTexts if all rows are known or none is."""
    if known.all():
        return spell()
    if not known.any():
        return Nulls(len(batch))
    spelt = spell()
    return CodedMarks(np.where(known, spelt.codes, len(spelt.words)), [*spelt.words, None])


Names = Callable[[Field], tuple[str, ...]]
"""The names of a field's values, as in Member."""


def _any_text(field: Field) -> tuple[str, ...]:
    return ()


def single(
    type: Type, read: Callable[[Batch, Field], Vector], show: Show, optional: bool = False, names: Names = _any_text
) -> Kind:
    """Values with one member, which has the column's name."""

    def members(column: str, field: Field) -> tuple[Member, ...]:
        return (Member(column, type, lambda batch: read(batch, field), optional, names(field)),)

    return Kind(members, show)


def text_kind(
    read: Callable[[Batch, Field], Texts], none: str = UNREAD, optional: bool = False, names: Names = _any_text
) -> Kind:
    """Texts; tables show `none` for an empty one and for null."""

    def show(batch: Batch, field: Field) -> list[str]:
        return [text or none for text in read(batch, field).texts()]

    return single("text", read, show, optional, names)


def with_raw(
    spell: Callable[[Batch, Field], Texts],
    none: str = "",
    raw: Callable[[Batch, Field], Numbers] = numbers,
    names: Sequence[str] = (),
) -> Kind:
    """Like text_kind(), with the number in a second member."""
    texts = text_kind(spell, none, names=lambda field: tuple(names))
    return Kind(
        lambda column, field: (
            *texts.members(column, field),
            Member(f"{column}_raw", "int", lambda batch: raw(batch, field)),
        ),
        texts.show,
    )


def spelt_with_raw(spell: Callable[[int], str], none: str = "", names: Sequence[str] = ()) -> Kind:
    """A name with the raw number in a second member. Tables show `none` for an empty name. `names`: all that `spell`
    knows, if it is no Namer, which has them."""
    known = spell.names if isinstance(spell, Namer) else names
    return with_raw(lambda batch, field: coded(batch, field, spell), none, names=known)


def _value_names(batch: Batch, field: Field) -> CodedTexts:
    names = dict(field.values)
    return coded(batch, field, lambda number: names.get(number, str(number) if number else ""))


def maybe(read: Callable[[Batch, Field], Numbers], spell: Callable[[int], str] = str) -> Kind:
    """A number that some rows lack."""
    return single(
        "int",
        read,
        lambda batch, field: [UNREAD if number is None else spell(number) for number in read(batch, field).values()],
    )


def known_numbers(batch: Batch, field: Field) -> KnownNumbers:
    """Numbers; the highest one stands for unknown."""
    return KnownNumbers(batch.raw(field))


def known(spell: Callable[[int], str]) -> Kind:
    """A number that may be unknown."""
    return maybe(known_numbers, spell)


NUMBER = maybe(numbers)
ENUM = text_kind(_value_names, names=lambda field: tuple(name for _, name in field.values))
"""One of the field's `values`. Without a name, 0 becomes an empty text and any other number stays a number."""
FLAGS = with_raw(lambda batch, field: coded(batch, field, lambda bits: flag_names(bits, field.flags)), none=UNREAD)
"""A set of the field's `flags`."""


# Absent processes, such as the owner of a packet that has none: null. Note: 0 is also root's user ID and the PID
# of the kernel's idle task, so a process is absent only if it has neither a PID nor a name.


_ENDS = ("comm", "uid", "gid")


def pids(batch: Batch, field: Field) -> Numbers:
    """PIDs and TIDs; 0 means no process."""
    numbers = batch.raw(field)
    return SomeNumbers(numbers, numbers != 0)


def comms(batch: Batch, field: Field) -> FixedTexts:
    """Names of processes. A process that exists may have set its name to an empty one."""
    names = batch.raw(field)
    nameless = names == b""
    if not nameless.any() or (numbers := _numbers(batch, field)) is None:
        return FixedTexts(names)
    return FixedTexts(names, ~(nameless & (numbers == 0)))


def ids(batch: Batch, field: Field) -> Numbers:
    """UIDs and GIDs of processes."""
    found, numbers = batch.raw(field), _numbers(batch, field)
    if numbers is None or numbers.all():
        return Numbers(found)
    comm = f"{_prefix(field)}comm"
    named = batch.raw(comm) != b"" if _has(batch, comm) else np.zeros(len(batch), np.bool_)
    known: Mask = (numbers != 0) | named
    return SomeNumbers(found, known)


def _numbers(batch: Batch, field: Field) -> "np.ndarray[tuple[int], np.dtype[np.integer]] | None":
    """The PIDs of the processes that the field is about: peer_pid for peer_comm. None: the record has no such field."""
    name = "ppid" if field.name == "parent_comm" else f"{_prefix(field)}pid"
    return batch.raw(name) if _has(batch, name) else None


def _prefix(field: Field) -> str:
    return next((field.name.removesuffix(end) for end in _ENDS if field.name.endswith(end)), field.name)


def _has(batch: Batch, name: str) -> bool:
    return any(field.name == name for field in batch.gadget.record.fields)


# Texts: names, paths, lists, bytes. A text may be truncated or not valid UTF-8; each case has its own member. A
# real text that looks like one of our marks (`-`, or empty) is quoted in tables.


_MARKED = {"": '""', UNREAD: '"-"'}
"""Real texts that would be mistaken for marks in a table."""


def addresses(batch: Batch, field: Field) -> Texts:
    """Addresses as texts; each address is formatted once."""

    def spell() -> list[str | None]:
        raw = batch.raw(field).tolist()
        spelt = {address: address_text(address) for address in set(raw)}
        return [spelt[address] for address in raw]

    return SpeltTexts(spell, [batch.raw(field)], address_text)


def fixed_texts(batch: Batch, field: Field) -> FixedTexts:
    return FixedTexts(batch.raw(field))


def _data(batch: Batch, field: Field) -> list[str | None]:
    """Binary data in base64."""
    spans = batch.spans(field)
    memory = batch.buffer.bytes.data
    places = zip(spans.starts.tolist(), spans.lengths.tolist(), spans.readable.tolist(), strict=True)
    return [
        base64.b64encode(memory[start : start + length]).decode() if readable else None
        for start, length, readable in places
    ]


def _data_members(column: str, field: Field) -> tuple[Member, ...]:
    value = Member(column, "text", lambda batch: Texts(lambda: _data(batch, field), len(batch)))
    return value, _cut_member(column, field)


def span_texts(batch: Batch, field: Field) -> SpanTexts:
    def read(batch: Batch) -> SpanTexts:
        spans = batch.spans(field)
        buffer = batch.buffer
        return SpanTexts(buffer.bytes, spans.starts, spans.lengths, spans.readable, lambda: buffer.latin1)

    found = batch.vector(f"{field.name}:texts", read)
    assert isinstance(found, SpanTexts)
    return found


def paths(batch: Batch, field: Field) -> Texts:
    def join() -> list[str | None]:
        cut = batch.spans(field).cut.tolist()
        chains = span_texts(batch, field).texts()
        return [join_path(chain, is_cut) for chain, is_cut in zip(chains, cut, strict=True)]

    return SpeltTexts(join, [span_texts(batch, field), batch.spans(field).cut], join_path)


def join_path(chain: str | None, cut: bool) -> str | None:
    """Joins components, which come leaf first, each with a NUL. A cut path lacks its top: no leading slash."""
    if chain is None:
        return None
    parts = chain.split("\0")
    parts.reverse()
    if parts[0] == "":
        parts = parts[1:]
    joined = "/".join(parts)
    return joined if cut else f"/{joined}"


def _path_at(batch: Batch, field: Field) -> Texts:
    """The path joined to its starting directory; without a starting directory, the path as the caller wrote it."""

    base_field = batch.gadget.record.field(f"{field.name}_base")

    def join() -> list[str | None]:
        bases = paths(batch, base_field).texts()
        return [_join_base(base, text) for base, text in zip(bases, span_texts(batch, field).texts(), strict=True)]

    inputs: Inputs = [span_texts(batch, base_field), batch.spans(base_field).cut, span_texts(batch, field)]
    return SpeltTexts(join, inputs, lambda chain, is_cut, text: _join_base(join_path(chain, is_cut), text))


def _join_base(base: str | None, text: str | None) -> str | None:
    if text is None or base is None or text.startswith("/"):
        return text
    return f"{base.rstrip('/')}/{text}" if text else base


def _path_at_members(column: str, field: Field) -> tuple[Member, ...]:
    written = Member(f"{column}_written", "text", lambda batch: span_texts(batch, field))
    return (*_text_members(_path_at, sizable=True)(column, field), written)


def _list(batch: Batch, field: Field) -> TextLists:
    return TextLists([_split_list(text) for text in span_texts(batch, field).texts()])


def _split_list(text: str | None) -> list[str] | None:
    """Splits at NULs, which end the elements; the last element of a truncated list may lack its NUL."""
    if text is None:
        return None
    return (text[:-1] if text.endswith("\0") else text).split("\0") if text else []


def _text_members(read: Callable[[Batch, Field], Texts], sizable: bool) -> Callable[[str, Field], tuple[Member, ...]]:
    def members(column: str, field: Field) -> tuple[Member, ...]:
        def value(batch: Batch) -> Vector:
            return batch.vector(column, lambda batch: read(batch, field))

        def raw(batch: Batch) -> Vector:
            texts = value(batch)
            assert isinstance(texts, Texts)
            return Nulls(len(batch)) if texts.is_exact or texts.printable() else _base64(texts.texts())

        found = [Member(column, "text", value)]
        if sizable:
            found.append(_cut_member(column, field))
        return (*found, Member(f"{column}_bytes", "text", raw, optional=True))

    return members


def _list_members(column: str, field: Field) -> tuple[Member, ...]:
    def value(batch: Batch) -> Vector:
        return batch.vector(column, lambda batch: _list(batch, field))

    def raw(batch: Batch) -> Vector:
        vector = value(batch)
        assert isinstance(vector, TextLists)
        if vector.printable():
            return Nulls(len(batch))
        return TextLists([_base64_list(items) for items in vector.lists])

    return (
        Member(column, "texts", value),
        _cut_member(column, field),
        Member(f"{column}_bytes", "texts", raw, optional=True),
    )


def _cut_member(column: str, field: Field) -> Member:
    return Member(f"{column}_cut", "bool", lambda batch: Booleans(batch.spans(field).cut), optional=True)


def _base64(texts: Sequence[str | None]) -> Texts:
    """The exact bytes where a text is not valid UTF-8, else null."""
    return Texts(lambda: [None if text is None or _is_valid(text) else _encode(text) for text in texts], len(texts))


def _base64_list(items: list[str] | None) -> list[str] | None:
    return None if items is None or all(map(_is_valid, items)) else [_encode(item) for item in items]


def _is_valid(text: str) -> bool:
    return text.isprintable() or not any("\ud800" <= character <= "\udfff" for character in text)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _mark(text: str | None) -> str:
    return UNREAD if text is None else _MARKED.get(text, text)


def _marked(texts: Texts) -> list[str]:
    return [_mark(text) for text in texts.texts()]


def _show_span(batch: Batch, field: Field) -> list[str]:
    texts = span_texts(batch, field).texts()
    cut = batch.spans(field).cut
    if None in texts or "" in texts or UNREAD in texts:
        texts = [_mark(text) for text in texts]
    if cut.any():
        texts = [f"{text}{CUT}" if is_cut else text for text, is_cut in zip(texts, cut.tolist(), strict=True)]
    return texts  # type: ignore[return-value]


def _show_path(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    return [
        UNREAD if text is None else f"{CUT}/{text}" if is_cut else text
        for text, is_cut in zip(paths(batch, field).texts(), cut, strict=True)
    ]


def _show_path_at(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    texts = map(_mark, _path_at(batch, field).texts())
    return [f"{text}{CUT}" if is_cut else text for text, is_cut in zip(texts, cut, strict=True)]


def _show_terminal_text(batch: Batch, field: Field) -> list[str]:
    """Texts without their final newline, since the table adds its own."""
    texts = zip(span_texts(batch, field).texts(), batch.spans(field).cut.tolist(), strict=True)
    return [_mark(text and text.rstrip("\r\n")) + (CUT if is_cut else "") for text, is_cut in texts]


def _show_list(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    return [
        UNREAD if items is None else " ".join(map(quote, items)) + (CUT if is_cut else "")
        for items, is_cut in zip(_list(batch, field).lists, cut, strict=True)
    ]


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def quote(word: str) -> str:
    """Quotes a word for a shell, only if necessary. Letters of any script need no quotes."""
    if word and all(character in _PLAIN or (ord(character) > 127 and character.isprintable()) for character in word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


FIXED_TEXT = Kind(_text_members(fixed_texts, sizable=False), lambda batch, field: _marked(fixed_texts(batch, field)))


TEXT_KINDS: dict[str, Kind] = {
    "gadget_comm": Kind(_text_members(comms, sizable=False), lambda batch, field: _marked(comms(batch, field))),
    "gadget_operation": FIXED_TEXT,
    "gadget_device": Kind(
        _text_members(fixed_texts, sizable=False),
        lambda batch, field: [text or "-" for text in fixed_texts(batch, field).texts()],
    ),
    "gadget_terminal_text": Kind(_text_members(span_texts, sizable=True), _show_terminal_text),
    "gadget_data": Kind(
        _data_members, lambda batch, field: [UNREAD if text is None else text for text in _data(batch, field)]
    ),
    "gadget_string": Kind(_text_members(span_texts, sizable=True), _show_span),
    "gadget_strings": Kind(_list_members, _show_list),
    "gadget_path": Kind(_text_members(paths, sizable=True), _show_path),
    "gadget_path_at": Kind(_path_at_members, _show_path_at),
}
