"""What policies mean, as plain Python: which selectors match a call, and what follows. The rules:
`kubectl_gadget.policies.model`.

Nothing runs this on a node; it is what the BPF engine is compared with, so it shares nothing with the engine's tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubectl_gadget.policies.model import Action, Hook, Policy, Selector
from tests.policies.model.calls import Call
from tests.policies.model.filters import filter_matches
from tests.policies.model.workloads import belongs


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


def _signals(action: Action) -> bool:
    return action.kind in ("Sigkill", "Signal")
