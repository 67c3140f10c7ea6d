"""What an expression of a policy (CelExpr) comes to."""

import operator
from collections.abc import Callable, Mapping

from kubectl_gadget.policies.read.expressions import ArgumentValue, Computed, Expression, Number, Operation, signed

_OF_ONE: Mapping[Operation, Callable[[int], int]] = {
    **{"-": operator.neg, "not": operator.invert, "!": operator.not_},
    **{"int32": lambda a: (a & 0xFFFFFFFF) - ((a & 0x80000000) << 1), "uint32": lambda a: a & 0xFFFFFFFF},
}
_OF_TWO: Mapping[Operation, Callable[[int, int], int]] = {
    **{"+": operator.add, "-": operator.sub, "and": operator.and_, "or": operator.or_, "xor": operator.xor},
    **{"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"&&": lambda a, b: bool(a and b), "||": lambda a, b: bool(a or b)},
}


def evaluate_expression(expression: Expression, values: Callable[[int], int | None]) -> int | None:
    """What it comes to, as a signed number of 64 bits. None when an argument could not be read."""
    match expression:
        case Number(value):
            return signed(value)
        case ArgumentValue(position):
            value_or_none = values(position)
            return None if value_or_none is None else signed(value_or_none)
        case Computed(operation, operands):
            found = [evaluate_expression(operand, values) for operand in operands]
            numbers = [value for value in found if value is not None]
            if len(numbers) < len(found):
                return None
            return signed((_OF_TWO if len(numbers) == 2 else _OF_ONE)[operation](*numbers))
