"""Reads selectors into the model: what they apply to, their filters, and their actions.

Note: existing policies give parameters to actions that do not take them (`Sigkill` with `argError`). They are accepted
with a note, since they have no effect in other engines either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubectl_gadget.kube.selectors import OPERATORS, Requirement
from kubectl_gadget.policies.language import (
    ARGUMENT_OPERATORS,
    ARGUMENT_TYPES,
    BINARY_OPERATORS,
    CAPABILITIES,
    NAMESPACE_NAMES,
    SET_OPERATORS,
    SIGNALS,
    TESTS_OF_GROUP,
    WITHOUT_VALUES,
    ArgumentType,
    check_glob,
    standard_name,
    test_of,
)
from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Action,
    ActionKind,
    Argument,
    Assignment,
    HookFilter,
    Labels,
    NewFunction,
    Note,
    Range,
    RateLimit,
    RateScope,
    Scope,
    Selector,
    Subject,
    SubjectKind,
    Test,
    Value,
)
from kubectl_gadget.policies.read.values import (
    MOST,
    Lists,
    argument_values,
    assignment,
    capability_bits,
    check_expression,
    error_number,
    need_number,
)
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_reader import Part, Problems, Scalar, WrongYaml, one_of

# Scopes: label selectors, and the host.

CONTAINER_KEYS = ("name", "repo")


def read_scope(part: Part, problems: Problems, namespace: str | None = None) -> Scope:
    """The scope that the fields of `part` give; errors are added to `problems`."""
    host = part.part("hostSelector")
    if host is not None and list(host.names()):
        problems.add(host.place, "must be {}, for the processes of the node, or absent: it selects no labels")
    if host is not None and namespace is not None:
        problems.add(host.place, "is not for a TracingPolicyNamespaced, which is for pods")
    containers = read_labels(part, "containerSelector", problems)
    for requirement in containers or ():
        if requirement.key not in CONTAINER_KEYS:
            problems.add(part.at("containerSelector"), f"has the key {requirement.key!r}; expected name or repo")
    return Scope(
        namespace=namespace,
        pods=read_labels(part, "podSelector", problems),
        containers=containers,
        host=host is not None,
        nodes=read_labels(part, "nodeSelector", problems),
    )


def read_labels(part: Part, key: str, problems: Problems) -> Labels | None:
    """One label selector; None when it is not set."""
    selector = part.part(key)
    if selector is None:
        return None
    found = [Requirement(name, "In", (value,)) for name, value in selector.text_map("matchLabels").items()]
    for expression in selector.parts("matchExpressions"):
        operator = one_of(expression.text("operator"), OPERATORS, "In")
        values = expression.texts("values")
        if bool(values) != (operator in ("In", "NotIn")):
            problems.add(expression.place, f"{operator} takes {'no ' if values else ''}values")
        else:
            found.append(Requirement(expression.text("key"), operator, values))
    return tuple(found)


# Actions: each kind with its own parameters, and only where it makes sense.


_PARAMETERS: Mapping[ActionKind, tuple[str, ...]] = {
    "Post": ("rateLimit", "rateLimitScope", "kernelStackTrace", "userStackTrace", "imaHash"),
    "NoPost": (),
    "Sigkill": (),
    "Signal": ("argSig",),
    "Override": ("argError", "argRegs", "argNewSymbol", "argNewAddr", "argNewOffset"),
    "NotifyEnforcer": ("argError", "argSig"),
    "CleanupEnforcerNotification": (),
    "GetUrl": ("argUrl",),
    "DnsLookup": ("argFqdn",),
    "TrackSock": ("argSock",),
    "UntrackSock": ("argSock",),
    "Set": ("argIndex", "argValue"),
    "FollowFD": ("argFd", "argName"),
    "UnfollowFD": ("argFd", "argName"),
    "CopyFD": ("argFd", "argName"),
}
_HOOKS: Mapping[ActionKind, tuple[str, ...]] = {
    "Override": ("kprobe", "fentry", "lsm", "uprobe"),
    "Set": ("usdt",),
    "TrackSock": ("kprobe", "fentry", "lsm", "raw_tracepoint"),
    "UntrackSock": ("kprobe", "fentry", "lsm", "raw_tracepoint"),
}
_NEW_FUNCTION = ("argNewSymbol", "argNewAddr", "argNewOffset")
_ONLY_UPROBE = ("argRegs", *_NEW_FUNCTION)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SCOPES: tuple[RateScope, ...] = ("thread", "process", "global")
_LONGEST = (1 << 32) - 1
_GREATEST_INDEX = 63
_MOST_DIGITS = 100


def read_actions(selector: Part, key: str, hook_kind: str, problems: Problems, notes: list[Note]) -> tuple[Action, ...]:
    """The actions under `key` of a selector. Errors are added to `problems`, parameters without effect to `notes`."""
    found = []
    for part in selector.parts(key):
        with problems.collecting():
            found.append(_action(part, hook_kind, notes))
    kinds = {action.kind for action in found}
    if {"Post", "NoPost"} <= kinds:
        problems.add(selector.at(key), "has both Post and NoPost")
    return tuple(found)


def _action(part: Part, hook_kind: str, notes: list[Note]) -> Action:
    kind = _kind(part)
    hooks = _HOOKS.get(kind)
    if hooks and hook_kind not in hooks:
        part.fail("action", f"{kind} is for {', '.join(hooks)}, not for a {hook_kind.replace('_', ' ')}")
    for name in part.names():
        if name != "action" and name not in _PARAMETERS[kind]:
            notes.append(Note(part.at(name), f"does nothing: {kind} does not take it"))
    return Action(
        kind=kind,
        error=_error(part, kind, hook_kind, notes),
        signal=_signal(part, kind),
        url=_need_text(part, "argUrl", kind == "GetUrl"),
        domain_name=_need_text(part, "argFqdn", kind == "DnsLookup"),
        descriptor=_index(part, "argFd"),
        name=_index(part, "argName"),
        socket=_index(part, "argSock"),
        argument=_index(part, "argIndex"),
        value=need_number(part.scalar("argValue"), 0, (1 << 32) - 1) if "argValue" in part else 0,
        registers=_registers(part),
        instead=_instead(part),
        rate_limit=_rate_limit(part) if kind == "Post" else None,
        kernel_stack=part.flag("kernelStackTrace"),
        user_stack=part.flag("userStackTrace"),
        file_hash=part.flag("imaHash"),
        place=part.place,
    )


def _kind(part: Part) -> ActionKind:
    written = part.text("action")
    for kind in _PARAMETERS:
        if kind == written:
            return kind
    part.fail("action", f"{written!r} is not known{did_you_mean(written, _PARAMETERS)}")


def _error(part: Part, kind: ActionKind, hook_kind: str, notes: list[Note]) -> int:
    if kind not in ("Override", "NotifyEnforcer"):
        return 0
    special = [key for key in _ONLY_UPROBE if key in part]
    if special and hook_kind != "uprobe":
        part.fail(special[0], f"is only for uprobes, not for a {hook_kind.replace('_', ' ')}")
    if len([key for key in special if key != "argRegs"]) > 1:
        part.fail(special[-1], "only one of argNewSymbol, argNewAddr and argNewOffset can be given")
    if any(key in part for key in _NEW_FUNCTION) and "argError" in part:
        notes.append(Note(part.at("argError"), "has no effect: the other function's return value is used"))
    if "argError" not in part:
        if kind == "Override" and hook_kind == "uprobe" and not special:
            notes.append(Note(part.place, "argError is not given, so the call seems to succeed, with 0"))
        return 0
    error = error_number(part.scalar("argError"))
    if error > 0:
        text = f"the call returns {error}, which is not an error: errors are negative, -{error}"
        notes.append(Note(part.at("argError"), text))
    return error


def _registers(part: Part) -> tuple[Assignment, ...]:
    found = tuple(assignment(scalar) for scalar in part.scalars("argRegs"))
    if len({one.to.machine for one in found}) > 1:
        part.fail("argRegs", "has registers of several architectures")
    if len(found) > MOST:
        part.fail("argRegs", f"has {len(found)} registers; at most {MOST} are supported")
    return found


def _instead(part: Part) -> NewFunction | None:
    """The function given by argNewSymbol, argNewAddr or argNewOffset."""
    if not any(name in part for name in _NEW_FUNCTION):
        return None
    address = need_number(part.scalar("argNewAddr"), 1, (1 << 64) - 1) if "argNewAddr" in part else 0
    offset = need_number(part.scalar("argNewOffset"), 1, (1 << 63) - 1) if "argNewOffset" in part else 0
    return NewFunction(_need_text(part, "argNewSymbol", "argNewSymbol" in part), address, offset)


def _signal(part: Part, kind: ActionKind) -> int:
    if kind == "Signal" and "argSig" not in part:
        part.fail("argSig", "Signal needs argSig")
    if kind == "NotifyEnforcer" and "argSig" not in part and "argError" not in part:
        part.fail("action", "NotifyEnforcer needs argError or argSig")
    if kind not in ("Signal", "NotifyEnforcer") or "argSig" not in part:
        return 0
    return need_number(part.scalar("argSig"), 1 if kind == "Signal" else 0, 64, SIGNALS)


def _index(part: Part, key: str) -> int:
    return need_number(part.scalar(key), 0, _GREATEST_INDEX) if key in part else 0


def _need_text(part: Part, key: str, needed: bool) -> str:
    if needed and not part.text(key):
        part.fail(key, f"{part.text('action')} needs {key}")
    if needed and key == "argUrl" and not part.text(key).startswith(("http://", "https://")):
        part.fail(key, f"{part.text(key)!r} is not an http or https URL")
    return part.text(key)


def _rate_limit(part: Part) -> RateLimit | None:
    written = part.text("rateLimit")
    if not written:
        if "rateLimitScope" in part:
            part.fail("rateLimitScope", "needs a rateLimit")
        return None
    unit = _SECONDS.get(written[-1].lower())
    digits = written[:-1] if unit else written
    if not (digits.isascii() and digits.isdigit()):
        part.fail("rateLimit", f"{written!r} is not a time: 5 (seconds), 30s, 5m, 1h")
    # Python does not parse numbers with thousands of digits, and such a number is out of range in any case.
    seconds = int(digits) * (unit or 1) if len(digits) < _MOST_DIGITS else _LONGEST
    milliseconds = 1000 * seconds
    if not 0 < milliseconds <= _LONGEST:
        part.fail("rateLimit", f"{written!r} is out of range: 1s to {_LONGEST // 3_600_000}h")
    return RateLimit(milliseconds, one_of(part.text("rateLimitScope"), _SCOPES, "thread"))


# Filters, with values of the type that they are compared with. The trap: NotIn does not negate
# `matchNamespaceChanges` and `matchCapabilityChanges`: it matches a change of any namespace or capability other than
# the named ones.


_ALL_NAMESPACES = (1 << len(NAMESPACES)) - 1
_ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1
_GREATEST_PID = (1 << 32) - 1
_GREATEST_INODE = (1 << 32) - 1


@dataclass(frozen=True)
class SelectorContext:
    """The context of a selector: its hook's values, the policy's lists and macros, and the list of errors."""

    hook_kind: str
    arguments: tuple[Argument, ...]
    data: tuple[Argument, ...]
    return_argument: Argument | None
    returns: bool
    lists: Lists
    macros: Mapping[str, Part]
    problems: Problems
    notes: list[Note]


def read_selector(part: Part, context: SelectorContext) -> Selector:
    """One selector. Errors are added to `context.problems`."""
    filters: list[HookFilter] = []
    return_filters: list[HookFilter] = []
    for source in (part, *_macros(part, context)):
        _read_filters(source, context, filters, return_filters)
    if "matchReturnActions" in part and not context.returns:
        context.problems.add(part.at("matchReturnActions"), "needs `return: true` and `returnArg` in the hook")
    return Selector(
        filters=tuple(filters),
        return_filters=tuple(return_filters),
        actions=read_actions(part, "matchActions", context.hook_kind, context.problems, context.notes),
        return_actions=read_actions(part, "matchReturnActions", context.hook_kind, context.problems, context.notes),
        place=part.place,
    )


def _macros(part: Part, context: SelectorContext) -> list[Part]:
    found = []
    for scalar in part.scalars("macros"):
        if scalar.text in context.macros:
            found.append(context.macros[scalar.text])
        else:
            text = (
                f"there is no macro {scalar.text!r} in spec.selectorsMacros{did_you_mean(scalar.text, context.macros)}"
            )
            context.problems.add(scalar.place, text)
    return found


def _read_filters(
    part: Part, context: SelectorContext, filters: list[HookFilter], return_filters: list[HookFilter]
) -> None:
    """Adds the filters of a selector or of a macro to the two lists."""

    def gather(key: str, read: Callable[[Part], Sequence[HookFilter]], into: list[HookFilter] = filters) -> None:
        for item in part.parts(key):
            with context.problems.collecting():
                into.extend(read(item))

    gather("matchPIDs", lambda item: [_pid(item, context.lists)])
    gather("matchArgs", lambda item: [_argument(item, context, "argument", context.arguments)])
    gather("matchData", lambda item: [_argument(item, context, "data", context.data)])
    gather("matchReturnArgs", lambda item: [_returned(item, context)], return_filters)
    gather("matchBinaries", lambda item: [_binary(item, "binary", context.lists)])
    gather("matchParentBinaries", lambda item: [_binary(item, "parent_binary", context.lists)])
    gather("matchNamespaces", lambda item: [_namespace(item)])
    gather("matchNamespaceChanges", _namespace_change)
    gather("matchCapabilities", lambda item: [_capability(item)])
    gather("matchCapabilityChanges", _capability_change)
    workloads = part.part("matchWorkloads")
    if workloads is not None:
        scope = read_scope(workloads, context.problems)
        filters.append(HookFilter(Subject("workload"), "equal", (scope,), place=workloads.place))


def _pid(part: Part, lists: Lists) -> HookFilter:
    operator = _operator(part, SET_OPERATORS)
    values = [need_number(scalar, 0, _GREATEST_PID) for scalar in _given(part, lists)]
    subject = Subject("pid", in_namespace=part.flag("isNamespacePID"))
    follow = part.flag("followForks")
    return HookFilter(subject, "equal", tuple(values), operator == "NotIn", follow, operator, part.place)


def _binary(part: Part, kind: SubjectKind, lists: Lists) -> HookFilter:
    operator = _operator(part, BINARY_OPERATORS)
    follow = part.flag("followChildren")
    if follow and operator not in SET_OPERATORS:
        part.fail("followChildren", f"is only for In and NotIn, not for {operator}")
    values = _given(part, lists)
    for scalar in values:
        if not scalar.text or (operator in SET_OPERATORS and not scalar.text.startswith("/")):
            raise WrongYaml(scalar.place, f"{scalar.text!r} is not an absolute path, and binaries are compared by path")
        if operator in ("Glob", "NotGlob"):
            check_glob(scalar)
    test: Test = "equal"
    negated = operator == "NotIn"
    if operator not in SET_OPERATORS:
        test, negated = test_of(operator)
    texts = tuple(scalar.text for scalar in values)
    return HookFilter(Subject(kind), test, texts, negated, follow, operator, part.place)


def _namespace(part: Part) -> HookFilter:
    operator = _operator(part, SET_OPERATORS)
    values: list[Value] = [
        HOST_NAMESPACE if scalar.text == HOST_NAMESPACE else need_number(scalar, 1, _GREATEST_INODE)
        for scalar in _given(part)
    ]
    subject = Subject("namespace", name=NAMESPACE_NAMES[part.text("namespace")])
    return HookFilter(subject, "equal", tuple(values), operator == "NotIn", operator=operator, place=part.place)


def _namespace_change(part: Part) -> list[HookFilter]:
    operator = _operator(part, SET_OPERATORS)
    bits = 0
    for scalar in _given(part):
        name = NAMESPACE_NAMES.get(scalar.text)
        if name is None:
            raise WrongYaml(
                scalar.place, f"{scalar.text!r} is not a kind of namespace{did_you_mean(scalar.text, NAMESPACE_NAMES)}"
            )
        bits |= 1 << NAMESPACES.index(name)
    wanted = bits if operator == "In" else _ALL_NAMESPACES & ~bits
    if not wanted:
        part.fail("values", "name every kind of namespace, so NotIn never matches")
    return [HookFilter(Subject("namespace_change"), "mask", (wanted,), operator=operator, place=part.place)]


def _capability(part: Part, kind: SubjectKind = "capability") -> HookFilter:
    operator = _operator(part, SET_OPERATORS)
    subject = Subject(
        kind, name=part.text("type", "Effective").lower(), in_namespace=part.flag("isNamespaceCapability")
    )
    bits = capability_bits(_given(part))
    return HookFilter(subject, "mask", (bits,), operator == "NotIn", operator=operator, place=part.place)


def _capability_change(part: Part) -> list[HookFilter]:
    named = _capability(part, "capability_change")
    if not named.negated:
        return [named]
    bits = _ALL_CAPABILITIES & ~capability_bits(_given(part))
    others = HookFilter(named.subject, "mask", (bits,), operator=named.operator, place=part.place)
    return [named, others]


def _returned(part: Part, context: SelectorContext) -> HookFilter:
    if context.return_argument is None:
        raise WrongYaml(part.place, "needs `return: true` and `returnArg` in the hook")
    return _argument(part, context, "return", (context.return_argument,))


def _argument(part: Part, context: SelectorContext, kind: SubjectKind, arguments: tuple[Argument, ...]) -> HookFilter:
    operator = _operator(part, ARGUMENT_OPERATORS)
    test, negated = test_of(operator)
    positions = _positions(part, context.hook_kind, kind, arguments, test)
    if test == "expression":
        return _expression(part, kind, arguments, operator)
    argument = arguments[positions[0]]
    type = ARGUMENT_TYPES[argument.type]
    if test not in TESTS_OF_GROUP[type.group]:
        part.fail("operator", f"{operator} does not fit the type {argument.type}{_fitting(type)}")
    other = _old_set(part, arguments, positions) if test == "capabilities_gained" else 0
    values = _values(part, context.lists, operator, test, argument.type, type)
    if test == "equal" and any(isinstance(value, Range) for value in values):
        test = "range"
    subject = Subject(kind, positions[0], other=other)
    return HookFilter(subject, test, tuple(values), negated, operator=operator, place=part.place)


def _expression(part: Part, kind: SubjectKind, arguments: tuple[Argument, ...], operator: str) -> HookFilter:
    texts = _given(part)
    for scalar in texts:
        check_expression(scalar, arguments)
    return HookFilter(
        Subject(kind), "expression", tuple(scalar.text for scalar in texts), operator=operator, place=part.place
    )


def _values(part: Part, lists: Lists, operator: str, test: Test, type_name: str, type: ArgumentType) -> list[Value]:
    if operator in WITHOUT_VALUES:
        if part.scalars("values"):
            part.fail("values", f"are not for {operator}")
        return argument_values(test, operator, type_name, type, [])
    return argument_values(test, operator, type_name, type, _given(part, lists))


def _old_set(part: Part, arguments: tuple[Argument, ...], positions: list[int]) -> int:
    """The position of the second argument of CapabilitiesGained."""
    if len(positions) != 2:
        part.fail("args", "must name two arguments for CapabilitiesGained: the new set and the old one")
    type = ARGUMENT_TYPES[arguments[positions[1]].type]
    if type.group != "capabilities":
        part.fail("args", f"{arguments[positions[1]].type} is not a set of capabilities")
    return positions[1]


def _positions(part: Part, hook_kind: str, kind: SubjectKind, arguments: tuple[Argument, ...], test: Test) -> list[int]:
    """The positions in `arguments` that a filter applies to."""
    if kind == "return" or test == "expression":
        return [0]
    last = len(arguments) - 1
    if not arguments:
        part.fail("index", f"there is no {'`data`' if kind == 'data' else '`args`'} in the hook")
    if "args" in part:
        positions = [need_number(scalar, 0, last) for scalar in part.scalars("args")]
        if len(positions) != (2 if test == "capabilities_gained" else 1):
            part.fail("args", "must name one argument; only CapabilitiesGained takes two")
        return positions
    index = need_number(part.scalar("index"), 0, 1 << 16) if "index" in part else 0
    if kind == "data":
        return [need_number(Scalar(str(index), part.at("index")), 0, last)]
    for position, argument in enumerate(arguments):
        if argument.index == index:
            return [position]
    # Fields of tracepoints have large indexes; existing policies use the position in the list instead.
    if "tracepoint" in hook_kind and index <= last:
        return [index]
    known = ", ".join(str(argument.index) for argument in arguments)
    part.fail("index", f"{index} is not among the hook's `args`, which have index {known}")


def _fitting(type: ArgumentType) -> str:
    tests = TESTS_OF_GROUP[type.group]
    names = [name for name in ARGUMENT_OPERATORS if test_of(name)[0] in tests and name not in ("GT", "LT")]
    return f"; {', '.join(names)} do" if names else ", which cannot be compared"


def _operator(part: Part, known: Sequence[str]) -> str:
    written = part.text("operator")
    name = written if written in SET_OPERATORS else standard_name(written)
    if name is None or name not in known:
        part.fail("operator", f"{written!r} is not known here{did_you_mean(written, known)}")
    return name


def _given(part: Part, lists: Lists | None = None) -> list[Scalar]:
    values = part.scalars("values")
    if lists is not None:
        values = lists.expand(values)
    if not values:
        part.fail("values", "is missing")
    return values
