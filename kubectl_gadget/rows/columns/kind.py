"""A kind: the members that a column becomes in JSON and filters, and its text in a table.

The rule for names: the member with the column's own name holds the main value; if both a number and its name are
useful, there are two members. So `errno` is a number with the name in `error`, and `flags` is a text with the number in
`flags_raw`. The trap: no value may be invented; what could not be read is null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.tables import Namer, flag_names
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.texts import CodedMarks, CodedTexts, Nulls, Texts
from kubectl_gadget.rows.vectors import KnownNumbers, Mask, Numbers, Type, Vector, different

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


@dataclass(frozen=True)
class Kind:
    """How one typedef is read. `members` takes the column's name; `show` returns texts that are not escaped yet."""

    members: Callable[[str, Field], tuple[Member, ...]]
    show: Show
    alarm: bool = False
    """values other than 0 are errors, which tables show in red"""


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
    """As text_kind(), with the number in a second member."""
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
    """Numbers of which the highest one stands for unknown."""
    return KnownNumbers(batch.raw(field))


def known(spell: Callable[[int], str]) -> Kind:
    """A number that may be unknown."""
    return maybe(known_numbers, spell)


NUMBER = maybe(numbers)


ENUM = text_kind(_value_names, names=lambda field: tuple(name for _, name in field.values))
"""One of the field's `values`. Without a name, 0 becomes an empty text and any other number stays a number."""


FLAGS = with_raw(lambda batch, field: coded(batch, field, lambda bits: flag_names(bits, field.flags)), none=UNREAD)
"""A set of the field's `flags`."""
