"""Translates one filter of a policy into a test of the engine: the slot, how to look at it, and the entries.

The trap: texts are compared as bytes, and `equal` is a prefix comparison that includes the NUL at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.encoding.comparison_tables import (
    BIASED,
    FILE_TYPE,
    LONGEST_TEXT,
    PATTERN_BYTES,
    Entry,
    Look,
    TestClass,
    network_bits,
)
from kubectl_gadget.policies.compiler.encoding.globs import BITS, fits
from kubectl_gadget.policies.compiler.encoding.postfix import Postfix, encode, postfix
from kubectl_gadget.policies.compiler.encoding.slots import WITH_TEXT, Slot, SlotFlag, task_slot
from kubectl_gadget.policies.model import (
    CAPABILITY_SETS,
    HOST_NAMESPACE,
    NAMESPACES,
    HookFilter,
    Range,
    SystemCall,
    Value,
)
from kubectl_gadget.policies.read.expressions import parse_expression
from kubectl_gadget.wire.policy_events.policy_record import WITH_ADDRESSES, Type

_CAPABILITY_PARTS = {"permitted": 8, "effective": 9, "inheritable": 10}
_CHANGE_PARTS = {"permitted": 0, "effective": 1, "inheritable": 2}
_SOCKET_PARTS = {"source_port": 0, "destination_port": 1, "protocol": 2, "family": 3, "state": 4}
_ADDRESS_PARTS = {"source_address": 0, "destination_address": 1}
_HOST = 1 << 32
"""POLICY_HOST_NAMESPACE: a number that no namespace has."""
MOST_FOLLOWED = 1024
"""POLICY_FOLLOWED_WORDS of bpf/include/policy/processes.h, times 64."""
_SIGNED, _UNSIGNED = (-(1 << 63), (1 << 63) - 1), (0, (1 << 64) - 1)


@dataclass(frozen=True)
class FilterTest:
    """One filter in the form of a test."""

    slot: Slot
    look: Look
    entries: tuple[Entry, ...]
    negated: bool
    expressions: tuple[Postfix, ...] = ()

    def placed(self, slots: Sequence[Slot]) -> tuple[Entry, ...]:
        """The entries, once the slots are numbered."""
        return (*self.entries, *(encode(each, slots) for each in self.expressions))


class Followed:
    """The programs whose descendants policies follow, numbered by path."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def number(self, filter: HookFilter, path: bytes) -> int:
        """The number of a path, from 0. Raises UsageError when there are too many paths or this one is too long."""
        if len(path) > LONGEST_TEXT:
            raise UsageError(f"{filter.place}: paths of more than {LONGEST_TEXT} bytes cannot be followed: {path!r}")
        number = self.numbers.setdefault(path, len(self.numbers))
        if number >= MOST_FOLLOWED:
            raise UsageError(f"{filter.place}: more than {MOST_FOLLOWED} programs cannot be followed at once")
        return number


def filter_test(
    filter: HookFilter,
    arguments: Sequence[Slot | None],
    result: Slot | None,
    followed: Followed,
    data: Sequence[Slot | None] = (),
) -> FilterTest:
    """The test for a filter. `arguments` and `data` are the slots of the hook's arguments and data, `result` is the
    slot of its return value; programs to follow are added to `followed`. Raises UsageError."""
    if filter.subject.kind == "data":
        filter, arguments = replace(filter, subject=replace(filter.subject, kind="argument")), data
    if filter.follow and filter.subject.kind in ("binary", "parent_binary"):
        look = Look(TestClass.RAN, int(filter.subject.kind == "parent_binary"))
        programs = tuple(followed.number(filter, text) for text in _texts(filter))
        return FilterTest(task_slot(Type.STARTED_BY), look, programs, filter.negated)
    if filter.test == "expression":
        return _expression(filter, arguments)
    slot, part = _subject(filter, arguments, result)
    if filter.test == "capabilities_gained":
        return _gained(filter, slot, arguments[filter.subject.other])
    if filter.follow:
        numbers = tuple(_integer(filter, value) for value in filter.values)
        return FilterTest(slot, Look(TestClass.DESCENDS, part), numbers, filter.negated)
    if HOST_NAMESPACE in filter.values:
        numbers = tuple(_HOST if value == HOST_NAMESPACE else _integer(filter, value) for value in filter.values)
        return FilterTest(slot, Look(TestClass.IN_NAMESPACE, part), numbers, filter.negated)
    if filter.test in _ADDRESS_PARTS:
        if slot.type not in WITH_ADDRESSES:
            raise _wrong(filter, "has no addresses")
        networks = [value for value in filter.values if isinstance(value, IPv4Network | IPv6Network)]
        look = Look(TestClass.NETWORK, _ADDRESS_PARTS[filter.test])
        return FilterTest(slot, look, tuple(map(network_bits, networks)), filter.negated)
    if filter.test in _SOCKET_PARTS:
        if slot.type not in WITH_ADDRESSES:
            raise _wrong(filter, "is not a socket")
        return _number(filter, slot, _SOCKET_PARTS[filter.test])
    if filter.test in ("file_type", "same_file"):
        if slot.type not in (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB):
            raise _wrong(filter, "is not a file")
        if filter.test == "same_file":
            return FilterTest(slot, Look(TestClass.SAME_FILE), tuple(_texts(filter)), filter.negated)
        return _number(filter, slot, 0, FILE_TYPE)
    is_text = slot.type in WITH_TEXT or (slot.type is Type.AUTO and any(isinstance(one, str) for one in filter.values))
    if is_text and filter.test not in ("less", "greater", "range", "mask"):
        return _text(filter, slot)
    return _number(filter, slot, part)


def _subject(filter: HookFilter, arguments: Sequence[Slot | None], result: Slot | None) -> tuple[Slot, int]:
    """The slot, and the part of it that is meant when the test does not say."""
    subject = filter.subject
    match subject.kind:
        case "argument":
            slot = arguments[subject.position]
            if slot is None:
                raise _wrong(filter, "is of the type nop, whose values are never read")
            if slot.type in (Type.CRED, Type.USER_NAMESPACE) and filter.test == "equal":
                raise _unsupported(filter, f"comparing a {slot.type.name.lower()} as a whole")
            return slot, 0
        case "return":
            if result is None:
                raise _wrong(filter, "cannot be compared: the hook does not give its type (returnArg)")
            return result, 0
        case "pid":
            return task_slot(Type.PID), 1 if subject.in_namespace else 0
        case "binary":
            return task_slot(Type.BINARY), 0
        case "parent_binary":
            return task_slot(Type.PARENT_BINARY), 0
        case "namespace":
            return task_slot(Type.NAMESPACES), NAMESPACES.index(subject.name)
        case "namespace_change":
            return task_slot(Type.NAMESPACE_CHANGES), 0
        case "capability":
            assert set(CAPABILITY_SETS) == set(_CAPABILITY_PARTS) == set(_CHANGE_PARTS)
            return task_slot(Type.CAPABILITIES, subject.in_namespace), _CAPABILITY_PARTS[subject.name]
        case "capability_change":
            return task_slot(Type.CAPABILITY_CHANGES, subject.in_namespace), _CHANGE_PARTS[subject.name]
    raise _unsupported(filter, f"{subject.kind.replace('_', ' ')} filters")


def _expression(filter: HookFilter, arguments: Sequence[Slot | None]) -> FilterTest:
    def slot_of(position: int) -> Slot:
        slot = arguments[position]
        if slot is None or slot.type is not Type.NUMBER:
            raise UsageError(f"{filter.place}: arg{position} is not a number in the kernel")
        return slot

    if filter.subject.kind != "argument":
        raise _unsupported(filter, "an expression over data or the returned value")
    try:
        found = tuple(postfix(parse_expression(str(text)), slot_of) for text in filter.values)
    except ValueError as error:
        raise UsageError(f"{filter.place}: {error}") from None
    return FilterTest(task_slot(Type.EXPRESSION), Look(TestClass.COMPUTED), (), filter.negated, found)


def _gained(filter: HookFilter, new: Slot, old: Slot | None) -> FilterTest:
    if old is None or not new.type == old.type == Type.CAPABILITY_SET:
        raise _wrong(filter, "or the other argument is not a set of capabilities")
    if (new.source, new.steps, new.resolve) != (old.source, old.steps, old.resolve):
        raise _unsupported(filter, "comparing two sets from different structures")
    slot = replace(new, type=Type.CAPABILITIES_GAINED, size_index=old.index)
    return FilterTest(slot, Look(TestClass.MASK), (_UNSIGNED[1],), filter.negated)


def _number(filter: HookFilter, slot: Slot, part: int, flags: int = 0) -> FilterTest:
    signed = slot.type is Type.NUMBER and bool(slot.flags & SlotFlag.SIGNED)
    if filter.test == "mask":
        numbers = [_integer(filter, value) for value in filter.values]
        return FilterTest(slot, Look(TestClass.MASK, part), tuple(numbers), filter.negated)
    calls = tuple(value for value in filter.values if isinstance(value, SystemCall))
    spans = tuple(_span(filter, value, signed) for value in filter.values if not isinstance(value, SystemCall))
    if all(first == last for first, last in spans):
        look = Look(TestClass.IN_SET, part, flags)
        return FilterTest(slot, look, (*(first & _UNSIGNED[1] for first, _ in spans), *calls), filter.negated)
    look = Look(TestClass.IN_INTERVAL, part, flags | (BIASED if signed else 0))
    lowest, highest = _SIGNED if signed else _UNSIGNED
    cut = ((max(first, lowest), min(last, highest)) for first, last in spans)
    return FilterTest(slot, look, tuple(span for span in cut if span[0] <= span[1]), filter.negated)


def _span(filter: HookFilter, value: Value, signed: bool) -> tuple[int, int]:
    """The range of matching numbers, both ends included."""
    lowest, highest = _SIGNED if signed else _UNSIGNED
    if isinstance(value, Range):
        return value.first, value.last
    number = _integer(filter, value)
    if filter.test == "less":
        return lowest, number - 1
    if filter.test == "greater":
        return number + 1, highest
    return number, number


def _integer(filter: HookFilter, value: Value) -> int:
    if not isinstance(value, int):
        raise _unsupported(filter, f"the value {value!r} here")
    return value


def _texts(filter: HookFilter) -> list[bytes]:
    texts = [value.encode("utf-8", "surrogateescape") for value in filter.values if isinstance(value, str)]
    if len(texts) < len(filter.values):
        raise _wrong(filter, "is a text, and cannot be compared with other values")
    return texts


def _text(filter: HookFilter, slot: Slot) -> FilterTest:
    texts = _texts(filter)
    longest = LONGEST_TEXT if filter.test in ("equal", "prefix", "postfix") else PATTERN_BYTES
    for text in texts:
        if filter.test == "glob":
            if not fits(text.decode("utf-8", "surrogateescape")):
                raise UsageError(f"{filter.place}: patterns of more than {BITS - 1} bytes cannot be matched: {text!r}")
        elif len(text) > longest:
            raise UsageError(f"{filter.place}: texts of more than {longest} bytes cannot be compared: {text!r}")
        if not text and filter.test.startswith("substring"):
            raise _wrong(filter, "cannot be searched for an empty text")
    flags, entries = 0, texts
    match filter.test:
        case "equal":
            kind, entries = TestClass.PREFIX, [text + b"\0" for text in texts]
        case "prefix":
            kind = TestClass.PREFIX
        case "postfix":
            kind, entries = TestClass.POSTFIX, [text[::-1] for text in texts]
        case "substring":
            kind = TestClass.SUBSTRING
        case "glob":
            kind = TestClass.GLOB
        case "substring_ignore_case":
            kind, flags, entries = TestClass.SUBSTRING, 1, [text.lower() for text in texts]
        case _:
            raise _unsupported(filter, f"the operator {filter.operator or filter.test}")
    return FilterTest(slot, Look(kind, 0, flags), tuple(entries), filter.negated)


def _wrong(filter: HookFilter, what: str) -> UsageError:
    subject = filter.subject
    name = f"argument {subject.position}" if subject.kind == "argument" else subject.kind
    return UsageError(f"{filter.place}: {filter.operator or filter.test}: {name} {what}")


def _unsupported(filter: HookFilter, what: str) -> UsageError:
    return UsageError(f"{filter.place}: {what} is not supported yet")
