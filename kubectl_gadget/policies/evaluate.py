"""What policies mean, as plain Python: which selectors match a call, and what follows. The rules: `policies.model`.

Nothing runs this on a node; it is what the BPF engine is compared with, so it shares nothing with the engine's tables.
The trap: what could not be read matches neither a test nor its negation, so `not matches` is no negated filter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Action,
    Argument,
    Filter,
    Hook,
    Policy,
    Range,
    Scope,
    Selector,
    SystemCall,
    Value,
)
from kubectl_gadget.policies.read.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.read.expressions import evaluate_expression, parse_expression
from kubectl_gadget.policies.read.linux_names import number_on
from kubectl_gadget.policies.read.patterns import glob_matches
from kubectl_gadget.policies.workloads import Workload, belongs

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Connection:
    """A socket, a packet or an address, as far as it is known."""

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
class File:
    """A file behind an argument."""

    path: str
    type: int = 0o100000
    identity: tuple[int, int] = (0, 0)
    """device and inode"""


ArgumentValue = int | str | Connection | File | None
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
    workload: Workload = field(default_factory=Workload)


@dataclass(frozen=True)
class Call:
    """One call of a hook's function."""

    process: Process
    values: Mapping[Argument, ArgumentValue] = field(default_factory=dict, hash=False)
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    """device and inode of the paths that `same_file` names"""
    returned: ArgumentValue = None
    architecture: str = "x86_64"


@dataclass(frozen=True)
class Decision:
    """What one hook of one policy says to one call."""

    policy: str
    selector: int | None
    """the position of the selector that counts; None when the hook has none"""
    actions: tuple[Action, ...]

    @property
    def posts(self) -> bool:
        """Whether there is an event; the rate limit of a Post is not looked at here."""
        return all(action.kind != "NoPost" for action in self.actions)


@dataclass(frozen=True)
class Verdict:
    """What all policies together do to one call."""

    error: int | None
    """what the call returns instead of being done"""
    signals: tuple[int, ...]


_SIGKILL = 9


def decide(policies: Sequence[Policy], hook_of: Callable[[Policy], Sequence[Hook]], call: Call) -> list[Decision]:
    """The decisions of all policies that are for the process, in their order; `hook_of`: a policy's hooks there."""
    decisions = []
    for policy in policies:
        if belongs(policy.scope, call.process.workload):
            for hook in hook_of(policy):
                decision = decide_hook(policy.name, hook, call)
                if decision is not None:
                    decisions.append(decision)
    return decisions


def decide_hook(policy: str, hook: Hook, call: Call) -> Decision | None:
    """What a hook says at the call; None when no selector matches."""
    if not hook.selectors:
        return Decision(policy, None, ())
    for position in matching(hook, call):
        return Decision(policy, position, hook.selectors[position].actions)
    return None


def decide_return(policy: str, hook: Hook, call: Call) -> Decision | None:
    """What a hook with `returns` says at the return, with `return_actions`; None when no selector matches."""
    if not hook.selectors:
        return Decision(policy, None, ())
    for position in matching(hook, call):
        selector = hook.selectors[position]
        if all(filter_matches(one, hook, call) for one in selector.return_filters):
            return Decision(policy, position, selector.return_actions)
    return None


def matching(hook: Hook, call: Call) -> list[int]:
    """The positions of all selectors that match at the call; the first is the one that counts."""
    return [position for position, selector in enumerate(hook.selectors) if selector_matches(selector, hook, call)]


def selector_matches(selector: Selector, hook: Hook, call: Call) -> bool:
    """Whether all filters match that can be asked at the call."""
    return all(filter_matches(one, hook, call) for one in selector.filters)


def verdict(decisions: Sequence[Decision], monitor: Callable[[str], bool] = lambda policy: False) -> Verdict:
    """What is done: the first policy that gives an error decides it, all signals are sent; in `monitor`, nothing is."""
    actions = [action for decision in decisions if not monitor(decision.policy) for action in decision.actions]
    errors = [action.error for action in actions if action.kind == "Override"]
    signals = [_SIGKILL if action.kind == "Sigkill" else action.signal for action in actions if _signals(action)]
    return Verdict(errors[0] if errors else None, tuple(dict.fromkeys(signals)))


def filter_matches(one: Filter, hook: Hook, call: Call) -> bool:
    """Whether one filter matches."""
    answer = _answer(one, hook, call)
    return answer is not None and answer is not one.negated


def _signals(action: Action) -> bool:
    return action.kind in ("Sigkill", "Signal")


def _answer(one: Filter, hook: Hook, call: Call) -> bool | None:
    """Whether the test holds for any value; None when its subject could not be read."""
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
            return _binary(one, process.binary, process.started_by)
        case "parent_binary":
            parent = process.ancestors[0] if process.ancestors else None
            return None if parent is None else _binary(one, parent.binary, parent.started_by)
        case "namespace":
            return _namespace(one, process)
        case "namespace_change":
            return _any_bit(one, _changed_namespaces(process))
        case "capability" | "capability_change":
            return _capabilities(one, process)
        case "workload":
            return any(isinstance(value, Scope) and belongs(value, process.workload) for value in one.values)


def _pid(one: Filter, process: Process) -> bool:
    ancestors = process.ancestors if one.follow else ()
    if one.subject.in_namespace:
        # Every container has ancestors outside, so a 0 of theirs would be found always.
        pids = {process.namespace_pid, *(each.namespace_pid for each in ancestors if each.namespace_pid)}
    else:
        pids = {process.pid, *(each.pid for each in ancestors)}
    return any(value in pids for value in one.values)


def _binary(one: Filter, binary: str | None, started_by: frozenset[str]) -> bool | None:
    if binary is None:
        return None
    return _text(one, binary) or (one.follow and any(value in started_by for value in one.values))


def _namespace(one: Filter, process: Process) -> bool | None:
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


def _capabilities(one: Filter, process: Process) -> bool | None:
    name = one.subject.name
    if one.subject.in_namespace and process.namespaces.get("user") == process.host_namespaces.get("user"):
        return None
    now = process.capabilities.get(name)
    if one.subject.kind == "capability":
        return None if now is None else _any_bit(one, now)
    before = process.capabilities_at_exec.get(name)
    return None if now is None or before is None else _any_bit(one, before ^ now)


def _any_bit(one: Filter, bits: int) -> bool:
    return any(isinstance(value, int) and bool(bits & value) for value in one.values)


def _argument(
    one: Filter, arguments: Sequence[Argument], call: Call, read: Callable[[Argument], ArgumentValue]
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
        case File():
            return _file(one, value, call)
        case Connection():
            return _connection(one, value)


def _expression(one: Filter, arguments: Sequence[Argument], read: Callable[[Argument], ArgumentValue]) -> bool | None:
    def number(position: int) -> int | None:
        value = read(arguments[position])
        return value if isinstance(value, int) else None

    answers = [evaluate_expression(parse_expression(str(text)), number) for text in one.values]
    # One that looks at what could not be read is not true; others may be.
    return None if all(answer is None for answer in answers) else any(answers)


def _number(one: Filter, value: int, wanted: Value, call: Call) -> bool:
    if isinstance(wanted, SystemCall):
        return value == number_on(wanted, call.architecture)
    if isinstance(wanted, Range):
        return wanted.first <= value <= wanted.last
    if not isinstance(wanted, int):
        return False
    match one.test:
        case "equal":
            return value == wanted
        case "less":
            return value < wanted
        case "greater":
            return value > wanted
        case "mask":
            return bool(value & wanted)
    return False


def _text(one: Filter, text: str) -> bool:
    return any(isinstance(wanted, str) and _text_holds(one.test, text, wanted) for wanted in one.values)


def _text_holds(test: str, text: str, wanted: str) -> bool:
    match test:
        case "equal":
            return text == wanted
        case "prefix":
            return text.startswith(wanted)
        case "postfix":
            return text.endswith(wanted)
        case "substring":
            return wanted in text
        case "substring_ignore_case":
            return _lower(wanted) in _lower(text)
        case "glob":
            return glob_matches(wanted, text)
    return False


def _lower(text: str) -> str:
    """As the kernel's tolower() does for ASCII."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _file(one: Filter, file: File, call: Call) -> bool:
    if one.test == "file_type":
        return file.type in one.values
    if one.test == "same_file":
        return any(isinstance(path, str) and call.files.get(path) == file.identity for path in one.values)
    return _text(one, file.path)


def _connection(one: Filter, connection: Connection) -> bool | None:
    match one.test:
        case "family":
            return _one_of(connection.family, one.values)
        case "protocol":
            return _one_of(connection.protocol, one.values)
        case "state":
            return _one_of(connection.state, one.values)
        case "source_port":
            return _port(connection.source_port, one.values)
        case "destination_port":
            return _port(connection.destination_port, one.values)
        case "source_address":
            return _network(connection.source, one.values)
        case "destination_address":
            return _network(connection.destination, one.values)
    return None if connection.path is None else _text(one, connection.path)


def _one_of(value: int | None, wanted: Sequence[Value]) -> bool | None:
    return None if value is None else value in wanted


def _port(port: int | None, wanted: Sequence[Value]) -> bool | None:
    if port is None:
        return None
    return any(isinstance(each, Range) and each.first <= port <= each.last for each in wanted)


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
