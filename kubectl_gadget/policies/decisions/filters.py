"""Which selector of a hook counts for a call, by its filters. The rules: `kubectl_gadget.policies.model`.

Nothing of this runs on a node, and it shares nothing with the engine's tables, which tests compare with it. The traps:
a value that is not known (`Undecided`) leaves a selector open only if no other filter of it excludes the call. And what
could not be read matches neither a test nor its negation, so `not filter_matches` does not negate a filter.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from kubectl_gadget.policies.decisions.calls import (
    Address,
    ArgumentValue,
    Call,
    CallingProcess,
    ConnectionArgument,
    FileArgument,
    Undecided,
)
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.language.linux_names import number_on
from kubectl_gadget.policies.language.path_patterns import bytewise, glob_part_pattern, glob_parts
from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Argument,
    Hook,
    HookFilter,
    Range,
    Scope,
    SystemCall,
    Value,
)
from kubectl_gadget.policies.read.expressions import (
    ArgumentValue as ArgumentNumber,
)
from kubectl_gadget.policies.read.expressions import (
    Computed,
    Expression,
    Number,
    Operation,
    parse_expression,
    signed,
)


def first_match(hook: Hook, call: Call, at_return: bool = False) -> int | None:
    """The position of the first selector that matches, at the call or at its return. 0 for a hook without selectors;
    None when none matches. Raises Undecided."""
    if not hook.selectors:
        return 0
    for position, selector in enumerate(hook.selectors):
        if all_match((*selector.filters, *(selector.return_filters if at_return else ())), hook, call):
            return position
    return None


def all_match(filters: Iterable[HookFilter], hook: Hook, call: Call) -> bool:
    """Whether all of these match; False as soon as one does not, whatever the others need. Raises Undecided."""
    undecided: Undecided | None = None
    for one in filters:
        try:
            if not filter_matches(one, hook, call):
                return False
        except Undecided as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided
    return True


def filter_matches(one: HookFilter, hook: Hook, call: Call) -> bool:
    answer = _answer(one, hook, call)
    return answer is not None and answer is not one.negated


def _answer(one: HookFilter, hook: Hook, call: Call) -> bool | None:
    """Whether the test holds for any value; None when its subject could not be read."""
    process = call.process
    match one.subject.kind:
        case "argument":
            return _argument(one, hook.arguments, call, call.values.get)
        case "data":
            return _argument(one, hook.data, call, call.values.get)
        case "return":
            returned = () if hook.return_argument is None else (hook.return_argument,)
            return _argument(one, returned, call, lambda argument: call.result())
        case "pid":
            return _pid(one, process)
        case "binary":
            return _binary(one, process)
        case "parent_binary":
            parent = next(iter(process.ancestors), None)
            return None if parent is None else _binary(one, parent)
        case "namespace":
            return _namespace(one, process)
        case "namespace_change":
            return _any_bit(one, _changed_namespaces(process))
        case "capability" | "capability_change":
            return _capabilities(one, process)
        case "workload":
            return any(isinstance(value, Scope) and process.is_in(value) for value in one.values)


def _pid(one: HookFilter, process: CallingProcess) -> bool:
    own = process.namespace_pid if one.subject.in_namespace else process.pid
    if own in one.values or not one.follow:
        return own in one.values
    # Every container has ancestors outside, so a 0 of theirs would be found always.
    if one.subject.in_namespace:
        return any(each.namespace_pid in one.values for each in process.ancestors if each.namespace_pid)
    return any(each.pid in one.values for each in process.ancestors)


def _binary(one: HookFilter, process: CallingProcess) -> bool | None:
    if process.binary is None:
        return None
    return _text(one, process.binary) or (one.follow and any(value in process.started_by for value in one.values))


def _namespace(one: HookFilter, process: CallingProcess) -> bool | None:
    current = process.namespaces.get(one.subject.name)
    if current is None:
        return None
    return any(
        current == (process.host_namespaces.get(one.subject.name) if value == HOST_NAMESPACE else value)
        for value in one.values
    )


def _changed_namespaces(process: CallingProcess) -> int:
    bits = 0
    for position, name in enumerate(NAMESPACES):
        before, now = process.namespaces_at_exec.get(name), process.namespaces.get(name)
        if before is not None and now is not None and before != now:
            bits |= 1 << position
    return bits


def _capabilities(one: HookFilter, process: CallingProcess) -> bool | None:
    name = one.subject.name
    if one.subject.in_namespace and process.namespaces.get("user") == process.host_namespaces.get("user"):
        return None
    now = process.capabilities.get(name)
    if one.subject.kind == "capability":
        return None if now is None else _any_bit(one, now)
    before = process.capabilities_at_exec.get(name)
    return None if now is None or before is None else _any_bit(one, before ^ now)


def _any_bit(one: HookFilter, bits: int) -> bool:
    return any(isinstance(value, int) and bool(bits & value) for value in one.values)


def _argument(
    one: HookFilter, arguments: Sequence[Argument], call: Call, read: Callable[[Argument], ArgumentValue]
) -> bool | None:
    if one.test == "expression":
        return _expression(one, arguments, read)
    argument = arguments[one.subject.position]
    value = read(argument)
    if isinstance(value, FileArgument | ConnectionArgument) and one.test in value.unknown:
        raise Undecided(f"{one.operator or one.test} of {argument.type}")
    match value:
        case None:
            return None
        case int():
            if one.test == "capabilities_gained":
                old = read(arguments[one.subject.other])
                return bool(value & ~old) if isinstance(old, int) else None
            return any(_number(one, value, wanted, call) for wanted in one.values)
        case str():
            return _text(one, value)
        case FileArgument():
            return _file(one, value, call)
        case ConnectionArgument():
            return _connection(one, value)


def _expression(
    one: HookFilter, arguments: Sequence[Argument], read: Callable[[Argument], ArgumentValue]
) -> bool | None:
    def number(position: int) -> int | None:
        value = read(arguments[position])
        return value if isinstance(value, int) else None

    answers = [_evaluate(parse_expression(str(text)), number) for text in one.values]
    # One that looks at what could not be read is not true; others may be.
    return None if all(answer is None for answer in answers) else any(answers)


def _evaluate(expression: Expression, values: Callable[[int], int | None]) -> int | None:
    """The expression's value as a signed 64-bit number. None when an argument could not be read."""
    match expression:
        case Number(value):
            return signed(value)
        case ArgumentNumber(position):
            value_or_none = values(position)
            return None if value_or_none is None else signed(value_or_none)
        case Computed(operation, operands):
            found = [_evaluate(operand, values) for operand in operands]
            numbers = [value for value in found if value is not None]
            if len(numbers) < len(found):
                return None
            return signed((_OF_TWO if len(numbers) == 2 else _OF_ONE)[operation](*numbers))


def _number(one: HookFilter, value: int, wanted: Value, call: Call) -> bool:
    if isinstance(wanted, SystemCall):
        return value == number_on(wanted, call.architecture)
    if isinstance(wanted, Range):
        return wanted.first <= value <= wanted.last
    if not isinstance(wanted, int):
        return False
    compare = _NUMBER_TESTS.get(one.test)
    return compare is not None and bool(compare(value, wanted))


def _text(one: HookFilter, text: str) -> bool:
    compare = _TEXT_TESTS.get(one.test)
    return compare is not None and any(isinstance(wanted, str) and compare(text, wanted) for wanted in one.values)


def _lower(text: str) -> str:
    """As the kernel's tolower() does for ASCII."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` within a component, `**` over components, [a-z], [!a-z]. Compared as bytes."""
    return re.compile("".join(map(glob_part_pattern, glob_parts(pattern))), re.DOTALL)


_OF_ONE: Mapping[Operation, Callable[[int], int]] = {
    **{"-": operator.neg, "not": operator.invert, "!": operator.not_},
    **{"int32": lambda a: (a & 0xFFFFFFFF) - ((a & 0x80000000) << 1), "uint32": lambda a: a & 0xFFFFFFFF},
}
_OF_TWO: Mapping[Operation, Callable[[int, int], int]] = {
    **{"+": operator.add, "-": operator.sub, "and": operator.and_, "or": operator.or_, "xor": operator.xor},
    **{"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"&&": lambda a, b: bool(a and b), "||": lambda a, b: bool(a or b)},
}
_NUMBER_TESTS: Mapping[str, Callable[[int, int], int]] = {
    **{"equal": operator.eq, "less": operator.lt, "greater": operator.gt, "mask": operator.and_},
}
_TEXT_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    **{"equal": str.__eq__, "prefix": str.startswith, "postfix": str.endswith, "substring": str.__contains__},
    "substring_ignore_case": lambda text, wanted: _lower(wanted) in _lower(text),
    "glob": lambda text, wanted: _glob(wanted).fullmatch(bytewise(text)) is not None,
}


def _file(one: HookFilter, file: FileArgument, call: Call) -> bool:
    if one.test == "file_type":
        return file.type in one.values
    if one.test == "same_file":
        return any(isinstance(path, str) and call.files.get(path) == file.identity for path in one.values)
    return _text(one, file.path)


def _connection(one: HookFilter, connection: ConnectionArgument) -> bool | None:
    match one.test:
        case "family" | "protocol" | "state":
            value = getattr(connection, one.test)
            return None if value is None else value in one.values
        case "source_port" | "destination_port":
            port = getattr(connection, one.test)
            ranges = [each for each in one.values if isinstance(each, Range)]
            return None if port is None else any(each.first <= port <= each.last for each in ranges)
        case "source_address":
            return _network(connection.source, one.values)
        case "destination_address":
            return _network(connection.destination, one.values)
    return None if connection.path is None else _text(one, connection.path)


def _network(address: Address | None, wanted: Sequence[Value]) -> bool | None:
    if address is None:
        return None
    plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    return any(isinstance(each, IPv4Network | IPv6Network) and plain in each for each in wanted)


def number_in_type(argument: Argument, value: int) -> int:
    """A register's content as a number of the argument's type."""
    type = ARGUMENT_TYPES[argument.type]
    bits = type.bits or 64
    value &= (1 << bits) - 1
    return value - (1 << bits) if type.signed and value >> bits - 1 else value
