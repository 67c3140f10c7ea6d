"""The subset of CEL that policies may use (`CelExpr`): numbers, argN, + and -, comparisons, &&, ||, !, int32(),
uint32(), and(), or(), xor(), not().

Values have 64 bits, wrap around, and are compared as signed; a condition is 0 or 1. The trap: `argN` counts the list
`args` from 0, whatever the `index` of these arguments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Literal, NoReturn

from kubectl_gadget.counts import count
from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Argument
from kubectl_gadget.yaml_reader import Scalar, WrongYaml

Operation = Literal[
    "+", "-", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "int32", "uint32", "and", "or", "xor", "not"
]  # fmt: skip
"""`not`, `and`, `or`, `xor` operate on bits; `!`, `&&`, `||` on conditions."""


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: int


@dataclass(frozen=True)
class ArgumentValue:
    """`argN`."""

    position: int


@dataclass(frozen=True)
class Computed:
    """An operation on one or two operands."""

    operation: Operation
    operands: tuple["Expression", ...]


Expression = Number | ArgumentValue | Computed

_VARIABLE = re.compile(r"arg(\d{1,3})")
_RELATIONS: Mapping[str, Operation] = {
    "relation_lt": "<", "relation_le": "<=", "relation_gt": ">", "relation_ge": ">=", "relation_eq": "==",
    "relation_ne": "!=", "addition_add": "+", "addition_sub": "-",
}  # fmt: skip
_FUNCTIONS: Mapping[str, tuple[Operation, int]] = {
    "int32": ("int32", 1), "uint32": ("uint32", 1), "not": ("not", 1), "and": ("and", 2), "or": ("or", 2),
    "xor": ("xor", 2),
}  # fmt: skip
_TRUTHS = ("==", "!=", "<", "<=", ">", ">=", "&&", "||", "!")
_MASK = (1 << 64) - 1


def check_expression(scalar: Scalar, arguments: Sequence[Argument]) -> None:
    """Raises WrongYaml when the text is not such an expression, or refers to arguments that are not numbers."""
    try:
        expression = parse_expression(scalar.text)
    except UsageError as error:
        meant = f"\n  try: {error.remedy}" if error.remedy else ""
        raise WrongYaml(scalar.place, f"{error}{meant}") from None
    if not _is_condition(expression):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is a number, not a condition")
    for position in _positions(expression):
        if position >= len(arguments):
            raise WrongYaml(scalar.place, f"there is no arg{position}: the hook has {len(arguments)} `args`")
        type = ARGUMENT_TYPES[arguments[position].type]
        if type.group not in ("number", "auto"):
            raise WrongYaml(scalar.place, f"arg{position} is not a number but {arguments[position].type}")


@cache
def parse_expression(text: str) -> Expression:
    """Parses an expression. Raises UsageError, which shows the position of the error."""
    try:
        return _ExpressionReader(text).read(cel.parse(text))
    except RecursionError:
        raise UsageError("the expression is nested too deeply") from None


def signed(value: int) -> int:
    """The lowest 64 bits as a signed number."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _is_condition(expression: Expression) -> bool:
    return isinstance(expression, Computed) and expression.operation in _TRUTHS


def _positions(expression: Expression) -> set[int]:
    match expression:
        case ArgumentValue(position):
            return {position}
        case Computed(_, operands):
            return set().union(*map(_positions, operands))
    return set()


class _ExpressionReader:
    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, tree: cel.Tree) -> Expression:
        tree = cel.unwrap(tree)
        kind = getattr(tree, "data", "")
        if kind == "literal":
            return self._literal(tree)
        if kind == "ident":
            return self._variable(tree)
        if kind == "ident_arg":
            return self._function(tree)
        if kind in ("conditionaland", "conditionalor"):
            parts = tuple(self.read(part) for part in tree.children)
            if not all(map(_is_condition, parts)):
                self._fail(tree, "a condition is needed on both sides, but one is a number")
            return Computed("&&" if kind == "conditionaland" else "||", parts)
        if kind == "unary":
            return self._unary(tree)
        if kind in ("relation", "addition"):
            operator, right = tree.children
            return Computed(_RELATIONS[self._known(operator)], (self.read(operator.children[0]), self.read(right)))
        self._fail(
            tree,
            "this is not supported; expected + - && || ! == != < <= > >= int32() uint32() and() or() xor() not()",
        )

    def _known(self, operator: cel.Tree) -> str:
        if operator.data not in _RELATIONS:
            self._fail(operator, "this operator is not supported in policies")
        return str(operator.data)

    def _literal(self, tree: cel.Tree) -> Number:
        try:
            value = cel.literal(tree)
        except LookupError:
            value = None
        if isinstance(value, bool) or not isinstance(value, int):
            self._fail(tree, "only whole numbers are supported in policies")
        if not -(1 << 63) <= value < 1 << 63:
            self._fail(tree, "this number has more than 64 bits")
        return Number(int(value))

    def _variable(self, tree: cel.Tree) -> ArgumentValue:
        match = _VARIABLE.fullmatch(tree.children[0].value)
        if match is None:
            self._fail(tree, f"{tree.children[0].value} is not known; arguments are arg0, arg1, …")
        return ArgumentValue(int(match[1]))

    def _function(self, tree: cel.Tree) -> Computed:
        name = tree.children[0].value
        items = cel.arguments(tree, 1)
        operation, number = _FUNCTIONS.get(name, (None, 0))
        if operation is None:
            near = get_close_matches(name.lower(), _FUNCTIONS, 1)
            meant = f"{near[0]}()?" if near else f"expected one of {', '.join(_FUNCTIONS)}"
            self._fail(tree, f"{name}() is not supported in policies; {meant}")
        if len(items) != number:
            self._fail(tree, f"{name}() takes {count(number, 'value')}")
        return Computed(operation, tuple(self.read(item) for item in items))

    def _unary(self, tree: cel.Tree) -> Expression:
        sign, operand = tree.children
        value = self.read(operand)
        if sign.data != "unary_not":
            return Number(-value.value) if isinstance(value, Number) else Computed("-", (value,))
        if not _is_condition(value):
            self._fail(tree, "! is for conditions; not() inverts bits")
        return Computed("!", (value,))

    def _fail(self, tree: cel.Tree, why: str) -> NoReturn:
        raise cel.at_tree(self.text, tree, why)
