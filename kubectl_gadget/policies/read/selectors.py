"""Reads a selector into `model.Selector`: filters, with values of the type that they are compared with.

The trap: NotIn does not negate `matchNamespaceChanges` and `matchCapabilityChanges`: it matches a change of any
namespace or capability other than the named ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES, TESTS_OF_GROUP, ArgumentType
from kubectl_gadget.policies.language.linux_names import CAPABILITIES
from kubectl_gadget.policies.language.operators import (
    ARGUMENT_OPERATORS,
    BINARY_OPERATORS,
    SET_OPERATORS,
    WITHOUT_VALUES,
    standard_name,
    test_of,
)
from kubectl_gadget.policies.language.path_patterns import check_glob
from kubectl_gadget.policies.language.policy_schema import NAMESPACE_NAMES
from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Argument,
    HookFilter,
    Note,
    Range,
    Selector,
    Subject,
    SubjectKind,
    Test,
    Value,
)
from kubectl_gadget.policies.read.actions import read_actions
from kubectl_gadget.policies.read.expressions import check_expression
from kubectl_gadget.policies.read.filter_values import argument_values, capability_bits, need_number
from kubectl_gadget.policies.read.lists import Lists
from kubectl_gadget.policies.read.scope import read_scope
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.yaml_reader import Part, Problems, Scalar, WrongYaml

_ALL_NAMESPACES = (1 << len(NAMESPACES)) - 1
_ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1
_GREATEST_PID = (1 << 32) - 1
_GREATEST_INODE = (1 << 32) - 1


@dataclass(frozen=True)
class SelectorContext:
    """What a selector refers to: its hook's values, the policy's lists and macros, and the list of errors."""

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
