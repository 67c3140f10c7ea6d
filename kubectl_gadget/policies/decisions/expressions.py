"""What an expression of a policy (CelExpr) comes to."""

from collections.abc import Callable

from kubectl_gadget.policies.read.expressions import ArgumentValue, Computed, Expression, Number, Operation, signed


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
            return None if len(numbers) < len(found) else signed(_compute(operation, numbers))


def _compute(operation: Operation, numbers: list[int]) -> int:
    a, b = numbers[0], numbers[-1]
    match operation:
        case "+":
            return a + b
        case "-":
            return a - b if len(numbers) == 2 else -a
        case "int32":
            return (a & 0xFFFFFFFF) - ((a & 0x80000000) << 1)
        case "uint32":
            return a & 0xFFFFFFFF
        case "not":
            return ~a
        case "and":
            return a & b
        case "or":
            return a | b
        case "xor":
            return a ^ b
        case "!":
            return int(not a)
        case "&&":
            return int(bool(a and b))
        case "||":
            return int(bool(a or b))
        case "==":
            return int(a == b)
        case "!=":
            return int(a != b)
        case "<":
            return int(a < b)
        case "<=":
            return int(a <= b)
        case ">":
            return int(a > b)
        case ">=":
            return int(a >= b)
