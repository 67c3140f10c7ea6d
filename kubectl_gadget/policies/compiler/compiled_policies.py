"""The hooks of all policies, in the form that is sent to agents. Policies that name the same target share one hook.

The trap: two policies at one target share one program, so their requirements have to be compatible.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.policies.compiler import file_following, socket_tracking
from kubectl_gadget.policies.compiler.attach.hook_ways import COMPAT_PREFIXES
from kubectl_gadget.policies.compiler.attach.mirrors import with_mirrors
from kubectl_gadget.policies.compiler.compiled_hook import CompiledHook
from kubectl_gadget.policies.compiler.encoding.comparison_tables import prefix_key
from kubectl_gadget.policies.compiler.encoding.comparisons import Followed
from kubectl_gadget.policies.compiler.encoding.slots import REMEMBERED
from kubectl_gadget.policies.compiler.hook_spec import hook_spec
from kubectl_gadget.policies.compiler.refusals import check_returns
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions, PolicyAtHook, acts_at_call, workloads_of
from kubectl_gadget.policies.model import Hook, Policy, Scope
from kubectl_gadget.policies.read.enforcers import without_notices
from kubectl_gadget.policies.scope_labels import by_labels, by_node, scope_spec
from kubectl_gadget.wire.policy_messages import PolicySpec, ProcessesSpec


class CompiledPolicies:
    """All hooks of all policies. `scopes` are those that selectors refer to by number, `policies` those that have
    hooks."""

    def __init__(self, policies: Sequence[Policy], options: CompilerOptions) -> None:
        self.origin: Mapping[str, Any] = {}
        """for recordings: what it was compiled from, as JSON (cli/flags/policy_flags.py)"""
        self.scopes: list[Scope] = []
        self.policies = [without_notices(policy) for policy in policies]
        options = replace(options, follows=any(map(file_following.follows, policies)))
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
            tracks=any(map(socket_tracking.tracks, self.policies)),
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
        """Whether any scope depends on labels of pods or nodes, which only the client knows."""
        return any(by_labels(scope) or by_node(scope) for scope in self.scopes)


def _group(entry: PolicyAtHook) -> tuple[Any, ...]:
    hook = entry.hook
    kind = "function" if hook.kind in ("kprobe", "fentry") else hook.kind
    tracks = socket_tracking.tracks(entry.policy)
    list = (hook.generated.kind, hook.generated.pattern) if hook.generated else None
    returns = hook.returns and not entry.at_call
    return kind, target_name(hook), returns, hook.probe, list, tracks, bool(hook.mirrors)


def target_name(hook: Hook) -> str:
    """The hook's target, for people. System calls of 32-bit programs have the name that the kernel gives them."""
    if hook.generated:
        return f"list:{hook.generated.name}"
    return f"{COMPAT_PREFIXES[hook.abi]}{hook.target}" if hook.abi else hook.target
