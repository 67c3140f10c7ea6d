"""Columns of call stacks: lists in JSON, one line in tables.

The trap: many rows share few stacks, so each stack is formatted once.
"""

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.texts import CodedTexts, TextLists
from kubectl_gadget.rows.stacks import Stack, innermost, stack_of

STACK = "gadget_stack"
_LOST = "[lost]"


def stacks_of(batch: Batch, field: Field) -> list[Stack | None]:
    return [stack_of(number) for number in batch.raw(field).tolist()]


def stack_lists(batch: Batch, field: Field) -> TextLists:
    """Stacks as lists of texts; null for a stack that was lost."""
    spelt: dict[Stack | None, list[str] | None] = {None: None}
    lists = []
    for stack in stacks_of(batch, field):
        if stack not in spelt and stack is not None:
            spelt[stack] = [frame.text() for frame in stack]
        lists.append(spelt[stack])
    return TextLists(lists)


def show_stacks(batch: Batch, field: Field) -> list[str]:
    """Stacks as one line each: `read < handle < main`."""
    stacks = stacks_of(batch, field)
    return [_LOST if stack is None else " < ".join(frame.title for frame in stack) or "-" for stack in stacks]


def innermost_functions(batch: Batch) -> CodedTexts:
    """The innermost function of each row. The kernel's stack continues the program's."""
    fields = [field for field in batch.gadget.record.fields if field.type == STACK]
    fields.sort(key=lambda field: not field.name.startswith("kernel"))
    rows = zip(*(stacks_of(batch, field) for field in fields), strict=True)
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(innermost(row), len(numbers)) for row in rows]
    return CodedTexts(np.array(codes, np.intp), list(numbers) or [""])
