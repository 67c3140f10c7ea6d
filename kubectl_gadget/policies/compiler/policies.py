"""The hooks of all policies, in the form that is sent to agents. Policies that name the same target share one hook.

Two policies at one target share one program, so their requirements have to be compatible.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.linux.names import errno_name, signal_name
from kubectl_gadget.policies.compiler.attach import COMPAT_PREFIXES, with_mirrors
from kubectl_gadget.policies.compiler.hooks import CompiledHook, hook_spec
from kubectl_gadget.policies.compiler.selectors import (
    CompilerOptions,
    PolicyAtHook,
    SelectorAtHook,
    acts_at_call,
    check_returns,
    follows_files,
    tracks_sockets,
    workloads_of,
)
from kubectl_gadget.policies.compiler.slots import REMEMBERED
from kubectl_gadget.policies.compiler.tables import Followed, prefix_key
from kubectl_gadget.policies.model import Action, Hook, Policy, Scope, UserProbe, by_labels, by_node, scope_spec
from kubectl_gadget.policies.read.hooks import without_notices
from kubectl_gadget.wire import record_reader
from kubectl_gadget.wire.policy_events import Hook as Kind
from kubectl_gadget.wire.policy_messages import PolicySpec, ProcessesSpec
from kubectl_gadget.wire.policy_record import OVERRIDDEN, REPLACED, blocks, done_text, read, verdict_text
from kubectl_gadget.wire.record_reader import EventMetadata


class CompiledPolicies:
    """All hooks of all policies. `scopes` are those that selectors refer to by number, `policies` those that have
    hooks."""

    def __init__(self, policies: Sequence[Policy], options: CompilerOptions) -> None:
        self.origin: Mapping[str, object] = {}
        """for recordings: what it was compiled from, as JSON (cli/policy_flags.py)"""
        self.scopes: list[Scope] = []
        self.policies = [without_notices(policy) for policy in policies]
        options = replace(options, follows=any(map(follows_files, policies)))
        self._options = options
        groups: dict[tuple[Any, ...], list[PolicyAtHook]] = {}
        for policy in self.policies:
            for hook in with_mirrors(policy):
                for entry in self._entries(policy, hook):
                    groups.setdefault(_group(entry), []).append(entry)
        check_returns(entry.hook for entries in groups.values() for entry in entries)
        self._followed = Followed()
        self.hooks = [
            CompiledHook(number, key[1], entries, options, self._followed)
            for number, (key, entries) in enumerate(groups.items())
        ]

    def spec(self) -> PolicySpec:
        """The entry of RUN's gadgets, without the members that the session adds."""
        kills, calls_out = self._options.reaction == "kill", self._options.calls_out
        remembers = any(slot.type in REMEMBERED for hook in self.hooks for slot in hook.slots)
        followed = b"".join(
            prefix_key(0, path + b"\0") + struct.pack("<Q", number + 1)
            for path, number in self._followed.numbers.items()
        )
        return PolicySpec(
            name="policy",
            kind="policy",
            scopes=tuple(map(scope_spec, self.scopes)),
            hooks=tuple(map(hook_spec, self.hooks)),
            follows=self._options.follows,
            stacks=any(hook.takes_stacks for hook in self.hooks),
            tracks=any(map(tracks_sockets, self.policies)),
            processes=ProcessesSpec(followed=followed) if remembers else None,
            kill={hook.number: hook.reacting for hook in self.hooks if hook.reacting and kills},
            requests={hook.number: hook.requests for hook in self.hooks if hook.requests and calls_out},
        )

    def _entries(self, policy: Policy, hook: Hook) -> Iterable[PolicyAtHook]:
        scope = self._scope(policy, hook)
        if hook.returns and self._options.enforces(policy) and any(map(acts_at_call, hook.selectors)):
            yield PolicyAtHook(policy, hook, scope, at_call=True, scopes=self.scopes)
        yield PolicyAtHook(policy, hook, scope, at_call=False, scopes=self.scopes)

    def _scope(self, policy: Policy, hook: Hook) -> int:
        for selector in hook.selectors:
            for each in workloads_of(selector):
                self._number(each)
        return self._number(policy.scope)

    def _number(self, scope: Scope) -> int:
        if scope not in self.scopes:
            self.scopes.append(scope)
        return self.scopes.index(scope)

    @property
    def by_labels(self) -> bool:
        """Return True if any scope depends on labels of pods or nodes, which only the client knows."""
        return any(by_labels(scope) or by_node(scope) for scope in self.scopes)


def _group(entry: PolicyAtHook) -> tuple[object, ...]:
    hook = entry.hook
    kind = "function" if hook.kind in ("kprobe", "fentry") else hook.kind
    tracks = tracks_sockets(entry.policy)
    list = (hook.generated.kind, hook.generated.pattern) if hook.generated else None
    returns = hook.returns and not entry.at_call
    return kind, target_name(hook), returns, hook.probe, list, tracks, bool(hook.mirrors)


def target_name(hook: Hook) -> str:
    """The hook's target, for people. System calls of 32-bit programs have the name that the kernel gives them."""
    if hook.generated:
        return f"list:{hook.generated.name}"
    return f"{COMPAT_PREFIXES[hook.abi]}{hook.target}" if hook.abi else hook.target


# Static metadata of a selector's events: what is the same in all of them.


_HOOKS: dict[str, Kind] = {"fentry": "kprobe", "raw_tracepoint": "tracepoint"}


def metadata_of(place: SelectorAtHook) -> EventMetadata:
    hook = place.hook
    subsystem, _, name = hook.target.rpartition("/")
    probe = hook.probe
    carried_out = place.enforced or place.reacts
    action = next((action.kind for action in place.selector.actions), "Post") if carried_out else "Post"
    returned = hook.return_argument
    return EventMetadata(
        hook=_HOOKS.get(hook.kind, hook.kind),  # type: ignore[arg-type]
        function=_function(hook, probe) if probe else name if "tracepoint" in hook.kind else target_name(hook),
        subsystem=probe.provider if probe else subsystem,
        path=probe.path if probe else "",
        offset=(probe.offset if probe else None) or 0,
        reference_counter=(probe.reference_counter if probe else None) or 0,
        system_call=hook.syscall,
        error=place.error,
        signal=place.signal,
        policy=place.policy.name,
        action=action,
        return_action=next((action.kind for action in place.selector.return_actions), ""),
        message=hook.message,
        tags=hook.tags,
        arguments=tuple((argument.type, argument.label) for argument in hook.arguments),
        data=tuple((argument.type, argument.label) for argument in hook.data),
        returned=None if returned is None else (returned.type, returned.label),
        would_be="" if carried_out else _wanted(place),
    )


def _wanted(place: SelectorAtHook) -> str:
    """The effect that the policy asks for: `BLOCKED EPERM SIGKILL`, `SET registers`, `SENT SIGKILL`, or nothing."""
    actions = (*place.selector.actions, *place.selector.return_actions)
    verdicts = [_verdict(action, place) for action in actions if action.kind == "Override"]
    signals = [signal_name(action.signal_sent) for action in actions if action.signal_sent]
    texts = [*(verdict_text(verdict, errno_name) for verdict in verdicts), *signals]
    return done_text(any(map(blocks, verdicts)), " ".join(texts)) if texts else ""


def _verdict(action: Action, place: SelectorAtHook) -> int:
    """The engine's verdict. A program's function may also be made to return 0, by its registers: OVERRIDDEN."""
    if action.instead:
        return REPLACED
    return action.error or (OVERRIDDEN if place.hook.probe else 0)


def _function(hook: Hook, probe: UserProbe) -> str:
    """The function's name, or its offset or address as written in the policy."""
    return probe.symbol or probe.name or hook.target.removeprefix(f"{probe.path}:")


def metadata_spec(hook: CompiledHook, policies: Sequence[Policy]) -> dict[str, object]:
    """Everything that readers of the hook's records need, in the form that record_reader.HookReader takes. `policies`
    are all policies, in their order."""
    numbers = {id(policy): number for number, policy in enumerate(policies)}
    return {
        "forms": [list(form) for form in hook.forms],
        "selectors": [None if place is None else _selector(hook, place, numbers) for place in hook.bits],
    }


def _selector(hook: CompiledHook, place: SelectorAtHook, numbers: dict[int, int]) -> dict[str, object]:
    return {
        "metadata": metadata_of(place).spec(),
        "policy": numbers[id(place.policy)],
        "slots": hook.arguments[id(place.hook)],
        "data": hook.data[id(place.hook)],
        "returned": hook.results[id(place.hook)],
        "called": hook.called,
    }


# Decodes the engine's records, `struct policy_event` of bpf/include/policy/event.h, into matches.
#
# One record covers all policies whose selectors matched, and yields one `Match` for each. A record contains the values
# that any policy at the hook reads; a match contains the arguments of its own policy's hook only.


Match = record_reader.Match[SelectorAtHook]


def matches(record: bytes | memoryview, hooks: Sequence[CompiledHook]) -> Iterator[Match]:
    found = read(record, lambda number: hooks[number].forms)
    hook = hooks[found.hook]
    for bit in found.selectors:
        place = hook.bits[bit]
        if place is None:
            continue
        key = id(place.hook)
        slots = (hook.arguments[key], hook.data[key], hook.results[key], hook.called)
        yield record_reader.match_of(found, place, *slots)
