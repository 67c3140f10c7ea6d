"""Decides policies in plain Python: what the compiler's tables and the engine in the kernel are compared with.

The rules are those of `kubectl_gadget.policies.model`; nothing here is shared with the engine's tables. Note: a value
that could not be read matches neither a test nor its negation, so `not filter_matches` does not negate a filter.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kubectl_gadget.policies.language import ARGUMENT_TYPES, bytewise, glob_part_pattern, glob_parts, number_on
from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Action,
    Argument,
    Hook,
    HookFilter,
    Policy,
    Range,
    Scope,
    SystemCall,
    Value,
    is_for_labels,
    is_for_node,
    selected,
)
from kubectl_gadget.policies.read.values import ArgumentValue as ArgumentNumber
from kubectl_gadget.policies.read.values import Computed, Expression, Number, Operation, parse_expression, signed

# Workloads, and the scopes that are for them.


@dataclass(frozen=True)
class ScopedWorkload:
    """What selectors look at. Without a pod it is a process of the node itself."""

    namespace: str = ""
    pod: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    container: str = ""
    repository: str = ""
    """of the container's image, without tag and digest"""
    node_labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_host(self) -> bool:
        """True if it is not a container."""
        return not self.pod


def belongs(scope: Scope, workload: ScopedWorkload) -> bool:
    """True if the scope is for the workload."""
    if not is_for_node(scope, workload.node_labels):
        return False
    only_host = scope.host and scope.pods is None and scope.containers is None
    if workload.is_host:
        everything = scope.pods is None and scope.containers is None
        return scope.namespace is None and (scope.host or everything)
    if (only_host and scope.namespace is None) or scope.namespace not in (None, workload.namespace):
        return False
    container = {"name": workload.container, "repo": workload.repository}
    return is_for_labels(scope, workload.namespace, workload.labels) and selected(scope.containers, container)


# Calls.

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class ConnectionArgument:
    """A socket, a packet or an address. None: it has no such value."""

    family: int | None = None
    protocol: int | None = None
    state: int | None = None
    source: Address | None = None
    destination: Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    path: str | None = None
    """of a Unix socket"""


@dataclass(frozen=True)
class FileArgument:
    """A file behind an argument."""

    path: str
    type: int = 0o100000
    identity: tuple[int, int] = (0, 0)
    """device and inode"""


ArgumentValue = int | str | ConnectionArgument | FileArgument | None
"""None: could not be read."""


@dataclass(frozen=True)
class Process:
    """The process that makes a call, at that moment."""

    pid: int = 1
    namespace_pid: int = 0
    """0 in the node's own PID namespace; of an ancestor, when it is outside of the process's one"""
    ancestors: tuple["Process", ...] = ()
    """The parent first. Only their ids and binaries are looked at"""
    binary: str | None = "/bin/true"
    started_by: frozenset[str] = frozenset()
    """binaries that an ancestor, or the process itself before its last exec, ran at some time"""
    namespaces: Mapping[str, int] = field(default_factory=dict, hash=False)
    namespaces_at_exec: Mapping[str, int] = field(default_factory=dict, hash=False)
    host_namespaces: Mapping[str, int] = field(default_factory=dict, hash=False)
    capabilities: Mapping[str, int] = field(default_factory=dict, hash=False)
    capabilities_at_exec: Mapping[str, int] = field(default_factory=dict, hash=False)
    workload: ScopedWorkload = field(default_factory=ScopedWorkload)

    def is_in(self, scope: Scope) -> bool:
        return belongs(scope, self.workload)


@dataclass(frozen=True)
class Call:
    """One call of a hook's function."""

    process: Process
    values: Mapping[Argument, ArgumentValue] = field(default_factory=dict, hash=False)
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    """device and inode of the paths that `same_file` names"""
    returned: ArgumentValue = None
    architecture: str = "x86_64"


# One hook: which selector counts for a call.


def first_match(hook: Hook, call: Call, at_return: bool = False) -> int | None:
    """The position of the first selector that matches, at the call or at its return. 0 for a hook without selectors;
    None when none matches."""
    if not hook.selectors:
        return 0
    for position, selector in enumerate(hook.selectors):
        if all_match((*selector.filters, *(selector.return_filters if at_return else ())), hook, call):
            return position
    return None


def all_match(filters: Iterable[HookFilter], hook: Hook, call: Call) -> bool:
    """Return True if all of these match."""
    return all(filter_matches(one, hook, call) for one in filters)


def filter_matches(one: HookFilter, hook: Hook, call: Call) -> bool:
    answer = _answer(one, hook, call)
    return answer is not None and answer is not one.negated


def _answer(one: HookFilter, hook: Hook, call: Call) -> bool | None:
    """True if the test holds for any value; None when its subject could not be read."""
    process = call.process
    match one.subject.kind:
        case "argument":
            return _argument(one, hook.arguments, call, call.values.get)
        case "data":
            return _argument(one, hook.data, call, call.values.get)
        case "return":
            returned = () if hook.return_argument is None else (hook.return_argument,)
            return _argument(one, returned, call, lambda argument: call.returned)
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


def _pid(one: HookFilter, process: Process) -> bool:
    own = process.namespace_pid if one.subject.in_namespace else process.pid
    if own in one.values or not one.follow:
        return own in one.values
    # Every container has ancestors outside, so a 0 of theirs would be found always.
    if one.subject.in_namespace:
        return any(each.namespace_pid in one.values for each in process.ancestors if each.namespace_pid)
    return any(each.pid in one.values for each in process.ancestors)


def _binary(one: HookFilter, process: Process) -> bool | None:
    if process.binary is None:
        return None
    return _text(one, process.binary) or (one.follow and any(value in process.started_by for value in one.values))


def _namespace(one: HookFilter, process: Process) -> bool | None:
    current = process.namespaces.get(one.subject.name)
    if current is None:
        return None
    return any(
        current == (process.host_namespaces.get(one.subject.name) if value == HOST_NAMESPACE else value)
        for value in one.values
    )


def _changed_namespaces(process: Process) -> int:
    bits = 0
    for position, name in enumerate(NAMESPACES):
        before, now = process.namespaces_at_exec.get(name), process.namespaces.get(name)
        if before is not None and now is not None and before != now:
            bits |= 1 << position
    return bits


def _capabilities(one: HookFilter, process: Process) -> bool | None:
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


# All policies together.


@dataclass(frozen=True)
class Decision:
    """What one hook of one policy says to one call."""

    policy: str
    selector: int | None
    """the position of the selector that counts; None when the hook has none"""
    actions: tuple[Action, ...]

    @property
    def posts(self) -> bool:
        """True if there is an event; the rate limit of a Post is not looked at here."""
        return all(action.kind != "NoPost" for action in self.actions)


@dataclass(frozen=True)
class Verdict:
    """What all policies together do to one call."""

    error: int | None
    """what the call returns instead of being done"""
    signals: tuple[int, ...]


_SIGKILL = 9


def decide_hook(policy: str, hook: Hook, call: Call, at_return: bool = False) -> Decision | None:
    """What a hook says at the call, or at its return; None when no selector matches."""
    position = first_match(hook, call, at_return)
    if position is None or not hook.selectors:
        return None if position is None else Decision(policy, None, ())
    selector = hook.selectors[position]
    return Decision(policy, position, selector.return_actions if at_return else selector.actions)


def matching(hook: Hook, call: Call) -> list[int]:
    """The positions of all selectors that match at the call; the first is the one that counts."""
    return [place for place, selector in enumerate(hook.selectors) if all_match(selector.filters, hook, call)]


def decide(policies: Sequence[Policy], hook_of: Callable[[Policy], Sequence[Hook]], call: Call) -> list[Decision]:
    """The decisions of all policies that are for the process, in their order; `hook_of`: a policy's hooks there."""
    decisions = []
    for policy in policies:
        if call.process.is_in(policy.scope):
            for hook in hook_of(policy):
                decision = decide_hook(policy.name, hook, call)
                if decision is not None:
                    decisions.append(decision)
    return decisions


def verdict(decisions: Sequence[Decision], monitor: Callable[[str], bool] = lambda policy: False) -> Verdict:
    """What is done: the first policy that gives an error decides it, all signals are sent; in `monitor`, nothing is."""
    actions = [action for decision in decisions if not monitor(decision.policy) for action in decision.actions]
    errors = [action.error for action in actions if action.kind == "Override"]
    signals = [_SIGKILL if action.kind == "Sigkill" else action.signal for action in actions if _signals(action)]
    return Verdict(errors[0] if errors else None, tuple(dict.fromkeys(signals)))


def _signals(action: Action) -> bool:
    return action.kind in ("Sigkill", "Signal")
