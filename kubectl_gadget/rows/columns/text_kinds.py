"""Kinds of texts: names, paths, lists, bytes.

A text may be truncated or not valid UTF-8; each case has its own member. The trap: a real text that looks like one of
our marks (`-`, or empty) is quoted in tables.
"""

import base64
from collections.abc import Callable, Sequence

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.network import address_text
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.absent_processes import comms
from kubectl_gadget.rows.columns.kind import CUT, UNREAD, Kind, Member
from kubectl_gadget.rows.columns.texts import FixedTexts, Inputs, Nulls, SpanTexts, SpeltTexts, TextLists, Texts
from kubectl_gadget.rows.vectors import Booleans, Vector

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
