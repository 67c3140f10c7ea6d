"""Reads the values of a policy: lists, the values of filters, expressions, and assignments to registers.

All raise WrongYaml at the place of what is wrong. A list's `type` determines whether it holds system calls, not the
hook that uses it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, NoReturn

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.policies.language import (
    ARGUMENT_TYPES,
    BPF_COMMANDS,
    BUFFERS,
    CAPABILITIES,
    ERRORS,
    FAMILIES,
    FILE_TYPES,
    PROTOCOLS,
    STATES,
    ArgumentType,
    check_glob,
    check_pattern,
    is_known,
    range_of,
    system_call,
    system_calls,
)
from kubectl_gadget.policies.model import (
    NOWHERE,
    Argument,
    Assignment,
    Generated,
    Range,
    Register,
    SystemCall,
    Test,
    Value,
)
from kubectl_gadget.wording import count, did_you_mean
from kubectl_gadget.yaml_reader import Part, Problems, Scalar, WrongYaml

# `spec.lists`: named lists of system calls, functions or values, and references of the form `list:NAME`.

LIST = "list:"


@dataclass(frozen=True)
class ListOf:
    """One list."""

    name: str
    values: tuple[Scalar, ...] = ()
    system_calls: bool = False
    generated: Generated | None = None


class Lists:
    """The lists of a policy."""

    def __init__(self, by_name: dict[str, ListOf]) -> None:
        self._by_name = by_name

    def get(self, scalar: Scalar) -> ListOf | None:
        """The list that `list:NAME` refers to; None for any other text. Raises WrongYaml when there is no such
        list."""
        if not scalar.text.startswith(LIST):
            return None
        name = scalar.text.removeprefix(LIST)
        if name not in self._by_name:
            raise WrongYaml(scalar.place, f"there is no list {name!r} in spec.lists{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    def expand(self, scalars: list[Scalar]) -> list[Scalar]:
        """The values, with references replaced by the values of the list; these keep the place of the reference."""
        found: list[Scalar] = []
        for scalar in scalars:
            values = self.get(scalar)
            if values is None:
                found.append(scalar)
            elif values.generated:
                raise WrongYaml(scalar.place, f"{scalar.text} is generated on the node, so only `call` can use it")
            else:
                found += [Scalar(value.text, scalar.place) for value in values.values]
        return found


def read_lists(spec: Part, problems: Problems) -> Lists:
    """All lists of a policy; errors are added to `problems`."""
    found: dict[str, ListOf] = {}
    for part in spec.parts("lists"):
        name = part.text("name")
        if name in found:
            problems.add(part.at("name"), f"the list {name!r} is defined twice")
        found[name] = ListOf(name)  # if it is wrong, references to it are not
        with problems.collecting():
            found[name] = _list(part, name)
    return Lists(found)


def need_system_call(scalar: Scalar) -> SystemCall:
    """The system call of that name. Raises WrongYaml, which suggests similar names, when there is none."""
    call = system_call(scalar.text)
    if call is None:
        hint = f"; is it sys_{scalar.text}?" if scalar.text in system_calls() else ", which begins with sys_"
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a name of a system call{hint}")
    if not is_known(call):
        raise WrongYaml(scalar.place, no_system_call(scalar, call))
    return call


def no_system_call(scalar: Scalar, call: SystemCall, hint: str = "") -> str:
    """The message that there is no such system call: the hint, then similar names in the spelling of the policy."""
    abi = f"{call.abi}/" if call.abi else ""
    near = did_you_mean(f"{abi}sys_{call.name}", [f"{abi}sys_{name}" for name in system_calls(call.abi)])
    return f"there is no system call {scalar.text}{hint}{near}"


def _list(part: Part, name: str) -> ListOf:
    kind = part.text("type")
    values = part.scalars("values")
    if kind in ("generated_syscalls", "generated_ftrace"):
        if values:
            part.fail("values", f"are generated on the node for a list of type {kind}")
        pattern = part.text("pattern")
        if (kind == "generated_ftrace") != bool(pattern):
            part.fail("pattern", "is missing" if kind == "generated_ftrace" else f"is not for a list of type {kind}")
        if pattern:
            try:
                check_pattern(pattern)
            except ValueError as error:
                part.fail("pattern", str(error))
        generated: Literal["generated_syscalls", "generated_ftrace"] = (
            "generated_syscalls" if kind == "generated_syscalls" else "generated_ftrace"
        )
        return ListOf(name, (), kind == "generated_syscalls", Generated(name, generated, pattern))
    if "pattern" in part:
        part.fail("pattern", "is only for a list of type generated_ftrace")
    if not values:
        part.fail("values", "is missing")
    if kind == "syscalls":
        for value in values:
            need_system_call(value)
    return ListOf(name, tuple(values), kind == "syscalls")


# The values of filters: numbers, ranges, names, addresses, ports, texts. Numbers are parsed as the API's own tools do
# (0x…, 0b…, 0o… and a leading 0 for octal), from the text and not from YAML's interpretation of it.


_GREATEST_PORT = 65535
_PRIVILEGED = Range(0, 1023)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAMES: Mapping[str, Mapping[str, int]] = {"capability": CAPABILITIES, "bpf_cmd": BPF_COMMANDS}
_NETWORK_NAMES: Mapping[Test, tuple[Mapping[str, int], int]] = {
    "protocol": (PROTOCOLS, 0xFFFF),
    "family": (FAMILIES, 0xFFFF),
    "state": (STATES, 0xFF),
}


def number(text: str) -> int | None:
    """A whole number as Go's ParseInt(…, 0, …) parses it; None when it is not a number."""
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if len(digits) > 1 and digits[0] == "0" and digits[1:].replace("_", "").isdigit():
        digits = f"0o{digits[1:]}"
    try:
        value = int(digits, 0)
    except ValueError:
        return None
    return None if digits[:1] in ("-", "+") or not digits.isascii() else -value if sign == "-" else value


def need_number(scalar: Scalar, least: int, greatest: int, names: Mapping[str, int] | None = None) -> int:
    """A number, or one of the names, between two bounds, both included. Raises WrongYaml."""
    value = number(scalar.text)
    if value is None and names:
        value = names.get(scalar.text)
    if value is None:
        hint = did_you_mean(scalar.text, names) if names else ""
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a number{' or the name of one' if names else ''}{hint}")
    if not least <= value <= greatest:
        raise WrongYaml(scalar.place, f"{scalar.text} is out of range: {least} to {greatest}")
    return value


def error_number(scalar: Scalar) -> int:
    """The return value of a call: a number, -EPERM, or EPERM, which means -EPERM."""
    name = scalar.text.removeprefix("-")
    return -ERRORS[name] if name in ERRORS else need_number(scalar, -(1 << 31), (1 << 31) - 1, ERRORS)


def capability_bits(scalars: Sequence[Scalar]) -> int:
    """The named capabilities as a set of bits."""
    bits = 0
    for scalar in scalars:
        if scalar.text not in CAPABILITIES:
            raise WrongYaml(
                scalar.place, f"{scalar.text!r} is not a capability{did_you_mean(scalar.text, CAPABILITIES)}"
            )
        bits |= 1 << CAPABILITIES[scalar.text]
    return bits


def argument_values(test: Test, operator: str, type_name: str, type: ArgumentType, given: list[Scalar]) -> list[Value]:
    """The values of a filter on an argument, for a test that fits the type."""
    if operator.endswith("Priv"):
        return [_PRIVILEGED]
    if test in _NETWORK_NAMES:
        names, greatest = _NETWORK_NAMES[test]
        return [need_number(scalar, 0, greatest, names) for scalar in given]
    reader = _READERS.get(test)
    if reader is not None:
        return [reader(scalar) for scalar in given]
    if type.group == "capabilities":
        return [_capability_set(scalar) for scalar in given]
    if type.group == "number" and (test == "range" or any(":" in scalar.text for scalar in given)):
        return [one for scalar in given for one in _number_ranges(scalar, type_name, type)]
    if type.group == "number":
        return [_number(scalar, test, type_name, type) for scalar in given]
    if type.group == "auto":
        return [_number_or_text(scalar, test) for scalar in given]
    return [_text(scalar, test, type_name in BUFFERS) for scalar in given]


def _text(scalar: Scalar, test: Test, buffer: bool = False) -> str:
    # Some policies include the NUL at the end of a text; in a buffer it is a byte like any other.
    text = scalar.text if buffer else scalar.text.rstrip("\0")
    if not text:
        raise WrongYaml(scalar.place, "is empty")
    if "\0" in text and not buffer:
        raise WrongYaml(scalar.place, "contains a NUL, which no text of the kernel does")
    if test == "glob":
        check_glob(scalar)
    if test == "same_file" and not text.startswith("/"):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not an absolute path")
    return text


def _number(scalar: Scalar, test: Test, type_name: str, type: ArgumentType) -> int | SystemCall:
    if type.bits == 64 and not type.signed and (call := system_call(scalar.text)):
        if not is_known(call):
            close = did_you_mean(call.name, system_calls(call.abi))
            raise WrongYaml(scalar.place, f"{scalar.text!r} is not a system call{close}")
        if call.abi and type_name != "syscall64":
            raise WrongYaml(scalar.place, f"{scalar.text!r} needs the type syscall64, which has the call's ABI")
        if test != "equal":
            raise WrongYaml(scalar.place, f"{scalar.text!r} is a name, which only Equal and InMap can compare")
        return call
    least, greatest = range_of(type)
    if type.signed and scalar.text.startswith("-") and scalar.text[1:] in ERRORS:
        return -ERRORS[scalar.text[1:]]
    # As an int, 0xffffffff and -1 are equal.
    wraps = test in ("equal", "mask") and type.signed
    value = need_number(scalar, least, (1 << type.bits) - 1 if wraps else greatest, _NAMES.get(type_name))
    return value - (1 << type.bits) if value > greatest else value


def _number_ranges(scalar: Scalar, type_name: str, type: ArgumentType) -> list[Range]:
    """One range, or two where a range of a signed type extends beyond its greatest number: 5:4294967295 of an int is 5
    to 2147483647, and all negative numbers."""
    whole = _range(scalar, lambda bound: _bound(bound, type_name, type))
    greatest, wrap = range_of(type)[1], 1 << type.bits
    if whole.last <= greatest:
        return [whole]
    if whole.first > greatest:
        return [Range(whole.first - wrap, whole.last - wrap)]
    if whole.first < 0:
        raise WrongYaml(scalar.place, f"{scalar.text!r} has both -1 and {whole.last}, which are the same {type_name}")
    return [Range(whole.first, greatest), Range(greatest + 1 - wrap, whole.last - wrap)]


def _bound(scalar: Scalar, type_name: str, type: ArgumentType) -> int:
    """One bound of a range; values of the unsigned type of the same width are allowed too."""
    if type.signed and scalar.text.startswith("-") and scalar.text[1:] in ERRORS:
        return -ERRORS[scalar.text[1:]]
    if type.bits == 64 and not type.signed and system_call(scalar.text):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is a name, which only Equal and InMap can compare")
    return need_number(scalar, range_of(type)[0], (1 << type.bits) - 1, _NAMES.get(type_name))


def _number_or_text(scalar: Scalar, test: Test) -> Value:
    if test in ("less", "greater", "mask"):
        return need_number(scalar, -(1 << 63), (1 << 64) - 1)
    if test == "range":
        return _range(scalar, lambda bound: need_number(bound, -(1 << 63), (1 << 64) - 1))
    value = number(scalar.text) if test == "equal" else None
    return _text(scalar, test) if value is None else value


def _range(scalar: Scalar, read: Callable[[Scalar], int]) -> Range:
    """FIRST:LAST, or one number, which is both."""
    first, colon, last = scalar.text.partition(":")
    start = read(Scalar(first, scalar.place))
    end = read(Scalar(last, scalar.place)) if colon else start
    if start > end:
        raise WrongYaml(scalar.place, f"{scalar.text!r} begins after its end")
    return Range(start, end)


def _capability_set(scalar: Scalar) -> int:
    value = number(scalar.text)
    if value is not None:
        return need_number(scalar, 0, (1 << 64) - 1)
    return capability_bits([Scalar(name.strip(), scalar.place) for name in scalar.text.split(",")])


def _network(scalar: Scalar) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(scalar.text, strict=False)
    except ValueError:
        hint = ": it must be filled in" if "$" in scalar.text else " such as 10.0.0.0/8, 10.1.2.3, 2001:db8::/32"
        raise WrongYaml(scalar.place, f"{scalar.text!r} is neither an address nor a network{hint}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((address, network.prefixlen - 96))
    return network


def _ports(scalar: Scalar) -> Range:
    return _range(scalar, lambda bound: need_number(bound, 0, _GREATEST_PORT))


def _file_type(scalar: Scalar) -> int:
    found = FILE_TYPES.get(scalar.text)
    if found is None:
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a type of files{did_you_mean(scalar.text, FILE_TYPES)}")
    return found


_READERS: Mapping[Test, Callable[[Scalar], Value]] = {
    "source_address": _network,
    "destination_address": _network,
    "source_port": _ports,
    "destination_port": _ports,
    "file_type": _file_type,
}


# Expressions, a subset of CEL (`CelExpr`): numbers, argN, + and -, comparisons, &&, ||, !, int32(), uint32(), and(),
# or(), xor(), not(). Values have 64 bits, wrap around, and are compared as signed; a condition is 0 or 1. The trap:
# `argN` counts the list `args` from 0, whatever the `index` of these arguments.


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


# `argRegs` of an Override: assignments to a program's registers, written rax=0, rip=(%rsp), rsp=8%rsp.
#
#     REGISTER=NUMBER            REGISTER=%REGISTER            REGISTER=NUMBER%REGISTER, their sum
#     REGISTER=(%REGISTER), REGISTER=NUMBER(%REGISTER)         the memory at that address
#
# All source values are those before the first assignment. Registers have the names of x86-64 or of arm64, whole or in
# part (eax, w0).


_X86 = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "", "ip")
_STACK = 19
_WHOLE = 8
MOST = 8
"""The most assignments that one action may have."""
_SPACE = re.compile(r"\s+")
_FORM = re.compile(
    r"(?P<to>\w+)=(?:(?P<number>[-+]?\w+)|(?P<offset>[-+]?\w+)?(?:%(?P<source>\w+)|\(%(?P<memory>\w+)\)))"
)


def _registers() -> Mapping[str, Register]:
    found: dict[str, Register] = {}
    for place, name in (*enumerate(_X86), (_STACK, "sp")):
        if name.startswith("r"):
            found |= {
                f"{name}{end}": Register("x86_64", place, n) for end, n in (("", 8), ("d", 4), ("w", 2), ("b", 1))
            }
        elif name:
            found |= {f"{start}{name}": Register("x86_64", place, n) for start, n in (("r", 8), ("e", 4), ("", 2))}
            found[name.replace("x", "l") if name.endswith("x") else f"{name}l"] = Register("x86_64", place, 1)
    # sp is taken by arm64's whole register, so on x86-64 only rsp and esp name the stack pointer.
    for name in ("ip", "ipl", "eip", "sp"):
        del found[name]
    for number in range(31):
        found |= {f"x{number}": Register("aarch64", number), f"w{number}": Register("aarch64", number, 4)}
    return found | {"sp": Register("aarch64", 31), "pc": Register("aarch64", 32), "lr": Register("aarch64", 30)}


REGISTERS = _registers()
_ARM64 = {"sp": ("sp",), "pc": ("pc",), "pstate": ("pstate",), "lr": ("regs", 30)}


def register_member(name: str) -> tuple[str | int, ...] | None:
    """The path in `struct pt_regs` of a whole register, by its assembler name: `rdi` is ("di",), `x0` ("regs", 0).
    None: no register has this name, which may be a member's."""
    found = REGISTERS.get(name)
    if name in ("orig_rax", "eflags", "rflags"):
        return ("orig_ax",) if name == "orig_rax" else ("flags",)
    if found is None or found.bytes < _WHOLE:
        return _ARM64.get(name)
    if found.machine == "aarch64":
        return _ARM64.get(name, ("regs", found.place))
    return ("sp",) if found.place == _STACK else (_X86[found.place],)


RETURNS: Mapping[str, str] = {"x86_64": "rip=(%rsp) rsp=8%rsp rax", "aarch64": "pc=%x30 x0"}
"""The assignments that make a function return at its entry, up to the register that takes the result."""
_NEXT: Mapping[str, str] = {"x86_64": "rip", "aarch64": "pc"}
"""The register with the address of the next instruction."""


def assignment(scalar: Scalar) -> Assignment:
    """Parses one element of `argRegs`. Raises WrongYaml."""
    match = _FORM.fullmatch(_SPACE.sub("", scalar.text))
    if match is None:
        raise WrongYaml(
            scalar.place, f"{scalar.text!r} is not an assignment: rax=0, rip=(%rsp), rsp=8%rsp, rbp=8(%rsp)"
        )
    to = _register(match["to"], scalar)
    if match["number"] is not None:
        return Assignment(to, "number", _written_number(match["number"], scalar))
    source = _register(match["source"] or match["memory"], scalar)
    if source.machine != to.machine:
        raise WrongYaml(scalar.place, f"{scalar.text!r} has registers of {to.machine} and of {source.machine}")
    number = _written_number(match["offset"], scalar) if match["offset"] else 0
    return Assignment(to, "memory" if match["memory"] else "sum", number, source)


def returning(machine: str, result: int) -> tuple[Assignment, ...]:
    """The assignments that make a function return `result` at its entry, on that machine."""
    written = f"{RETURNS[machine]}={result}".split()
    return tuple(assignment(Scalar(each, NOWHERE)) for each in written)


def continuing_as(machine: str, function: int) -> Assignment:
    """The assignment that makes a function continue as another, which has that number at the hook."""
    register = REGISTERS[_NEXT[machine]]
    return Assignment(register, "function", function, register)


def _register(name: str, scalar: Scalar) -> Register:
    found = REGISTERS.get(name)
    if found is None:
        raise WrongYaml(scalar.place, f"{scalar.text!r}: there is no register {name}")
    return found


def _written_number(text: str, scalar: Scalar) -> int:
    return need_number(Scalar(text, scalar.place), -(1 << 63), (1 << 64) - 1)
