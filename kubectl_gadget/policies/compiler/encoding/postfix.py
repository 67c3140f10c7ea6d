"""Expressions in the postfix form that the kernel evaluates: `struct policy_expression` of bpf/include/policy/memory.h.

The trap: the kernel refers to an argument by the number of its slot, and slots are numbered last; so operations refer
to slots until they are encoded.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from kubectl_gadget.policies.compiler.encoding.slots import Slot
from kubectl_gadget.policies.read.expressions import ArgumentValue, Expression, Number

MOST_OPERATIONS, MOST_DEPTH = 64, 16
_OPERATION = struct.Struct("<BBHIQ")
_WORD = (1 << 64) - 1


class Code(IntEnum):
    """enum policy_operation_code."""

    PUSH = 1
    PUSH_SLOT = 2
    NEGATE = 3
    INT32 = 4
    UINT32 = 5
    INVERT = 6
    NOT = 7
    ADD = 8
    SUBTRACT = 9
    AND = 10
    OR = 11
    XOR = 12
    BOTH = 13
    EITHER = 14
    EQUAL = 15
    UNEQUAL = 16
    LESS = 17
    LESS_EQUAL = 18
    GREATER = 19
    GREATER_EQUAL = 20


_OF_ONE = {"-": Code.NEGATE, "int32": Code.INT32, "uint32": Code.UINT32, "not": Code.INVERT, "!": Code.NOT}
_OF_TWO = {
    **{"+": Code.ADD, "-": Code.SUBTRACT, "and": Code.AND, "or": Code.OR, "xor": Code.XOR, "&&": Code.BOTH},
    **{"||": Code.EITHER, "==": Code.EQUAL, "!=": Code.UNEQUAL, "<": Code.LESS, "<=": Code.LESS_EQUAL},
    **{">": Code.GREATER, ">=": Code.GREATER_EQUAL},
}


@dataclass(frozen=True)
class Operation:
    """One step: pushes a number or the value of a slot, or pops one or two values and pushes the result."""

    code: Code
    number: int = 0
    slot: Slot | None = None


Postfix = tuple[Operation, ...]


def postfix(expression: Expression, slot_of: Callable[[int], Slot]) -> Postfix:
    """`slot_of` returns the slot of an argument. Raises ValueError, with a message for users, when the expression is
    too long."""
    operations = tuple(_operations(expression, slot_of))
    depth = deepest = 0
    for operation in operations:
        depth += 1 if operation.code <= Code.PUSH_SLOT else -1 if operation.code >= Code.ADD else 0
        deepest = max(deepest, depth)
    if len(operations) > MOST_OPERATIONS or deepest > MOST_DEPTH:
        what = f"{len(operations)} steps, {deepest} values kept"
        raise ValueError(
            f"the expression is too long: {what}; at most {MOST_OPERATIONS} and {MOST_DEPTH} are supported"
        )
    return operations


def encode(operations: Postfix, slots: Sequence[Slot]) -> bytes:
    """The encoded expression, without the set of selectors."""
    steps = (
        _OPERATION.pack(step.code, 0 if step.slot is None else slots.index(step.slot), 0, 0, step.number & _WORD)
        for step in operations
    )
    return struct.pack("<Q", len(operations)) + b"".join(steps).ljust(_OPERATION.size * MOST_OPERATIONS, b"\0")


def _operations(expression: Expression, slot_of: Callable[[int], Slot]) -> Iterator[Operation]:
    match expression:
        case Number(value):
            yield Operation(Code.PUSH, value)
        case ArgumentValue(position):
            yield Operation(Code.PUSH_SLOT, slot=slot_of(position))
        case _:
            for operand in expression.operands:
                yield from _operations(operand, slot_of)
            codes = _OF_TWO if len(expression.operands) == 2 else _OF_ONE
            yield Operation(codes[expression.operation])
