"""All policies' hooks, as the agents get them. One hook stands for all policies that name the same place.

The trap: two policies at one place are one program, so what they ask of it has to fit together.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.policies.engine import file_following, socket_tracking
from kubectl_gadget.policies.engine.compiled_hook import CompiledHook
from kubectl_gadget.policies.engine.encoding.comparison_tables import prefix_key
from kubectl_gadget.policies.engine.encoding.comparisons import Followed
from kubectl_gadget.policies.engine.encoding.slots import REMEMBERED
from kubectl_gadget.policies.engine.hook_spec import hook_spec
from kubectl_gadget.policies.engine.mirrors import with_mirrors
from kubectl_gadget.policies.engine.refusals import check_returns
from kubectl_gadget.policies.engine.scope_spec import by_labels, by_node, scope_spec
from kubectl_gadget.policies.engine.selectors_at_hook import EngineOptions, PolicyAtHook, acts_at_call, workloads_of
from kubectl_gadget.policies.engine.ways import COMPAT_PREFIXES
from kubectl_gadget.policies.model import Hook, Policy, Scope
from kubectl_gadget.policies.read.enforcers import without_notices


class Engine:
    """All hooks of all policies. `scopes` are those that selectors name by number, `policies` those of the hooks."""

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
        """The entry of RUN's gadgets, but for what is the session's."""
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
        """What agents are to ask for outside."""
        found = {str(hook.number): hook.requests for hook in self.hooks if hook.requests}
        return {"requests": found} if found and self._options.calls_out else {}

    def _kill(self) -> dict[str, Any]:
        """The selectors whose events are to end a process."""
        if self._options.reaction != "kill":
            return {}
        return {"kill": {str(hook.number): f"{hook.reacting:x}" for hook in self.hooks if hook.reacting}}

    def _processes(self) -> dict[str, Any]:
        """What has to be remembered of processes, when some hook asks for it."""
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
        """Whether something has to be remembered of each process."""
        return any(slot.type in REMEMBERED for hook in self.hooks for slot in hook.slots)

    @property
    def by_files(self) -> bool:
        """Whether files have to be looked for."""
        return any(hook.encoded.files for hook in self.hooks)

    @property
    def by_labels(self) -> bool:
        """Whether whom policies are for is said by labels of pods or nodes, which only the client knows."""
        return any(by_labels(scope) or by_node(scope) for scope in self.scopes)


def _group(entry: PolicyAtHook) -> tuple[Any, ...]:
    hook = entry.hook
    kind = "function" if hook.kind in ("kprobe", "fentry") else hook.kind
    tracks = socket_tracking.tracks(entry.policy)
    list = (hook.generated.kind, hook.generated.pattern) if hook.generated else None
    returns = hook.returns and not entry.at_call
    return kind, target_name(hook), returns, hook.probe, list, tracks, bool(hook.mirrors)


def target_name(hook: Hook) -> str:
    """For people: what of the kernel a hook stands at. 32-bit programs' system calls have the kernel's own name."""
    if hook.generated:
        return f"list:{hook.generated.name}"
    return f"{COMPAT_PREFIXES[hook.abi]}{hook.target}" if hook.abi else hook.target
