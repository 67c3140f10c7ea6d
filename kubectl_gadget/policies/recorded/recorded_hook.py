"""A policy's hook with the rows that stand for its calls: decides them, and says beforehand what they cannot decide.

The trap: a selector that cannot be decided hides those after it, since the first one that matches counts; so a call is
left open as a whole, and counted, unless another filter of that selector excludes it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook
from kubectl_gadget.policies.decisions.calls import (
    ArgumentValue,
    Call,
    CallingProcess,
    ConnectionArgument,
    FileArgument,
    Undecided,
)
from kubectl_gadget.policies.decisions.filters import first_match, number_in_type
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES, BUFFERS
from kubectl_gadget.policies.model import Argument, Hook, HookFilter
from kubectl_gadget.policies.recorded.hook_sources import (
    FILE_TESTS,
    SOCKET_TESTS,
    ArgumentPlace,
    GadgetRow,
    Reader,
    source_of,
    sources_of,
)

PRIVILEGES = "trace_privilege"
_CHANGES = ("namespace_change", "capability_change")
_FROM_EXEC = ("namespace", "capability")
_REQUESTS = ("GetUrl", "DnsLookup")
_WIDENING = (
    *("data-bytes", "every", "given-up", "hook", "interval", "report-interval", "reports", "resolve", "runtime"),
    *("sctp", "stack", "syscalls", "unaudited"),
)
"""Parameters of gadgets that never reduce the rows that stand for calls of hooks."""
_UNREAD = ("current_task", "registers")
Recorded = Mapping[str, Mapping[str, Any]]
"""The gadgets of a recording, each with all its parameters."""


class _Values(Mapping[Argument, ArgumentValue]):
    """The arguments of a call, read when they are asked for."""

    def __init__(self, readers: Mapping[Argument, Reader], row: GadgetRow) -> None:
        self._readers = readers
        self._row = row

    def __getitem__(self, argument: Argument) -> ArgumentValue:
        reader = self._readers.get(argument)
        if reader is None:
            raise Undecided(f"the {argument.type} at index {argument.index}")
        return _in_type(argument, reader(self._row))

    def __iter__(self) -> Iterator[Argument]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _in_type(argument: Argument, value: ArgumentValue) -> ArgumentValue:
    """The value as the engine reads an argument of that type. Of buffers, rows have only the beginning."""
    if argument.type in BUFFERS:
        raise Undecided(f"the {argument.type} at index {argument.index}")
    match ARGUMENT_TYPES[argument.type].group, value:
        case "number", int():
            return number_in_type(argument, value)
        case (
            ("text", str())
            | ("path", FileArgument())
            | ("socket" | "address" | "unix address", ConnectionArgument())
            | ("auto", int() | str())
        ):
            return value
    raise Undecided(f"the {argument.type} at index {argument.index}")


@dataclass(frozen=True)
class RecordedHook:
    """One hook of one policy, with its selectors in their order."""

    selectors: tuple[SelectorAtHook, ...]
    place: ArgumentPlace | None
    """None: no gadget of the recording has rows for it"""

    @property
    def hook(self) -> Hook:
        """The policy's hook."""
        return self.selectors[0].hook

    @property
    def name(self) -> str:
        """The policy and the hook, for people."""
        return f"policy {self.selectors[0].policy.name}, {self.hook.target or 'a list of functions'}"

    @cached_property
    def readers(self) -> dict[Argument, Reader]:
        """What reads each argument that rows have."""
        if self.place is None:
            return {}
        arguments = [one for one in (*self.hook.arguments, *self.hook.data) if one.source not in _UNREAD]
        found = {one: self.place.reader(one.index, one.resolve) for one in arguments}
        return {one: reader for one, reader in found.items() if reader is not None}

    def decide(self, caller: CallingProcess, row: GadgetRow) -> tuple[SelectorAtHook, Call] | None:
        """The selector whose event the call causes, and the call; None: no event. Raises Undecided."""
        call = Call(caller, _Values(self.readers, row), returned=self._returned(row) if self.hook.returns else None)
        position = first_match(self.hook, call, at_return=self.hook.returns)
        if position is None or not self.selectors[position].posts:
            return None
        return self.selectors[position], call

    def _returned(self, row: GadgetRow) -> ArgumentValue | Undecided:
        argument, read = self.hook.return_argument, self.place.source.returned if self.place else None
        if argument is None or read is None:
            return Undecided("what the call returned")
        try:
            return _in_type(argument, read(row))
        except Undecided as reason:
            return reason


def recorded_hooks(policies: CompiledPolicies, recorded: Recorded) -> list[RecordedHook]:
    """The hooks of all policies, in their order."""
    places: dict[int, list[SelectorAtHook]] = defaultdict(list)
    for compiled in policies.hooks:
        if not compiled.mirrors:
            for _, selector in compiled.selectors:
                places[id(selector.hook)].append(selector)
    ordered = (places.get(id(hook)) for policy in policies.policies for hook in policy.hooks)
    return [RecordedHook(tuple(found), source_of(found[0].hook, recorded)) for found in ordered if found]


def gaps(hooks: Sequence[RecordedHook], recorded: Recorded) -> Iterator[str]:
    """Yields what a replay of these hooks cannot decide, or decides by less than a live run would, one line each."""
    for one in hooks:
        if one.place is None:
            needed = dict.fromkeys(
                " ".join([source.gadget.replace("_", " "), *(f"--{name}" for name in source.needs)])
                for source in sources_of(one.hook)
            )
            remedy = f"; {' or '.join(needed)} would have them" if needed else ""
            yield f"{one.name}: the recording has no calls of it, so no events are shown{remedy}"
            continue
        source = one.place.source
        if source.doubt:
            yield f"{one.name}: {source.doubt}"
        if narrowed := _narrowed(recorded[source.gadget], source.needs):
            yield f"{one.name}: {source.gadget.replace('_', ' ')} was recorded with {narrowed}, so calls are missing"
        if not recorded[source.gadget].get("runtime", True):
            yield f"{one.name}: {source.gadget.replace('_', ' ')} was recorded without --runtime, so calls are missing"
        yield from _of_selectors(one, recorded)


def _narrowed(parameters: Mapping[str, Any], needed: Sequence[str]) -> str:
    given = (name for name, value in parameters.items() if value and name not in (*needed, *_WIDENING))
    return ", ".join(f"--{name}" for name in sorted(given))


def _of_selectors(one: RecordedHook, recorded: Recorded) -> Iterator[str]:
    for selector in one.selectors:
        where = one.name if selector.number is None else f"{one.name}, selector {selector.number + 1}"
        for filter in (*selector.selector.filters, *selector.selector.return_filters):
            if lacking := _lacking(filter, one, recorded):
                yield f"{where}: {lacking}"
        for action in selector.selector.all_actions:
            if action.kind in _REQUESTS:
                yield f"{where}: {action.kind} makes no request in a replay"
            if action.kernel_stack or action.user_stack or action.file_hash:
                yield f"{where}: events have no stacks and hashes, which the recording does not have"


def _lacking(filter: HookFilter, one: RecordedHook, recorded: Recorded) -> str:
    """What the recording lacks for a filter; empty: nothing."""
    subject, what = filter.subject, filter.operator or filter.test
    gadget = "" if one.place is None else one.place.source.gadget.replace("_", " ")
    if subject.kind in ("argument", "data"):
        arguments = one.hook.arguments if subject.kind == "argument" else one.hook.data
        asked = arguments if filter.test == "expression" else (arguments[subject.position],)
        missing = [argument for argument in asked if argument not in one.readers or argument.type in BUFFERS]
        if missing or filter.test in FILE_TESTS | SOCKET_TESTS:
            argument = (missing or asked)[0]
            return (
                f"{what} of the {argument.type} at index {argument.index} is not decided: {gadget} does not record it"
            )
    if subject.kind == "return" and (one.place is None or one.place.source.returned is None):
        return f"{what} of the result is not decided: {gadget} does not record it"
    if PRIVILEGES not in recorded:
        if subject.kind in _CHANGES:
            return f"{what} of changes is not decided without trace privilege"
        if subject.kind in _FROM_EXEC:
            return (
                f"{what} of {subject.name} looks at what programs began with, without changes that trace privilege has"
            )
    return ""
