"""The hooks of all policies, in the form that is sent to agents. Policies that name the same target share one hook.

The trap: two policies at one target share one program, so their requirements have to be compatible.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.policies.engine import file_following, socket_tracking
from kubectl_gadget.policies.engine.attach.hook_ways import COMPAT_PREFIXES
from kubectl_gadget.policies.engine.attach.mirrors import with_mirrors
from kubectl_gadget.policies.engine.compiled_hook import CompiledHook
from kubectl_gadget.policies.engine.encoding.comparison_tables import prefix_key
from kubectl_gadget.policies.engine.encoding.comparisons import Followed
from kubectl_gadget.policies.engine.encoding.slots import REMEMBERED
from kubectl_gadget.policies.engine.hook_spec import hook_spec
from kubectl_gadget.policies.engine.refusals import check_returns
from kubectl_gadget.policies.engine.scope_spec import by_labels, by_node, scope_spec
from kubectl_gadget.policies.engine.selectors_at_hook import EngineOptions, PolicyAtHook, acts_at_call, workloads_of
from kubectl_gadget.policies.model import Hook, Policy, Scope
from kubectl_gadget.policies.read.enforcers import without_notices


class Engine:
    """All hooks of all policies. `scopes` are those that selectors refer to by number, `policies` those that have
    hooks."""

    def __init__(self, policies: Sequence[Policy], options: EngineOptions) -> None:
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

    def spec(self) -> dict[str, Any]:
        """The entry of RUN's gadgets, without the members that the session adds."""
        return {
            "name": "policy",
            "kind": "policy",
            "scopes": [scope_spec(scope) for scope in self.scopes],
            "follows": self._options.follows,
            "stacks": any(hook.takes_stacks for hook in self.hooks),
            "tracks": any(map(socket_tracking.tracks, self.policies)),
            "hooks": [hook_spec(hook) for hook in self.hooks],
            **self._processes(),
            **self._kill(),
            **self._requests(),
        }

    def _requests(self) -> dict[str, Any]:
        """The network requests that agents make."""
        found = {str(hook.number): hook.requests for hook in self.hooks if hook.requests}
        return {"requests": found} if found and self._options.calls_out else {}

    def _kill(self) -> dict[str, Any]:
        """The selectors whose events make the agent kill a process."""
        if self._options.reaction != "kill":
            return {}
        return {"kill": {str(hook.number): f"{hook.reacting:x}" for hook in self.hooks if hook.reacting}}

    def _processes(self) -> dict[str, Any]:
        """The state to keep of each process, when some hook needs it."""
        if not self.remembers:
            return {}
        programs = self._followed.numbers.items()
        table = b"".join(prefix_key(0, path + b"\0") + struct.pack("<Q", number + 1) for path, number in programs)
        return {"processes": {"followed": base64.b64encode(table).decode()}}

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
    def remembers(self) -> bool:
        """Whether state has to be kept of each process."""
        return any(slot.type in REMEMBERED for hook in self.hooks for slot in hook.slots)

    @property
    def by_files(self) -> bool:
        """Whether files have to be looked up by path."""
        return any(hook.encoded.files for hook in self.hooks)

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
