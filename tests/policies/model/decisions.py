"""What all policies together say to a call, and do to it: what the BPF engine is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubectl_gadget.policies.decisions.calls import Call
from kubectl_gadget.policies.decisions.filters import all_match, first_match
from kubectl_gadget.policies.model import Action, Hook, Policy


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


def decide_hook(policy: str, hook: Hook, call: Call, at_return: bool = False) -> Decision | None:
    """What a hook says at the call, or at its return; None when no selector matches."""
    position = first_match(hook, call, at_return)
    if position is None or not hook.selectors:
        return None if position is None else Decision(policy, None, ())
    selector = hook.selectors[position]
    return Decision(policy, position, selector.return_actions if at_return else selector.actions)


def matching(hook: Hook, call: Call) -> list[int]:
    """The positions of all selectors that match at the call; the first is the one that counts."""
    return [place for place, selector in enumerate(hook.selectors) if all_match(selector.filters, hook, call)]


def decide(policies: Sequence[Policy], hook_of: Callable[[Policy], Sequence[Hook]], call: Call) -> list[Decision]:
    """The decisions of all policies that are for the process, in their order; `hook_of`: a policy's hooks there."""
    decisions = []
    for policy in policies:
        if call.process.is_in(policy.scope):
            for hook in hook_of(policy):
                decision = decide_hook(policy.name, hook, call)
                if decision is not None:
                    decisions.append(decision)
    return decisions


def verdict(decisions: Sequence[Decision], monitor: Callable[[str], bool] = lambda policy: False) -> Verdict:
    """What is done: the first policy that gives an error decides it, all signals are sent; in `monitor`, nothing is."""
    actions = [action for decision in decisions if not monitor(decision.policy) for action in decision.actions]
    errors = [action.error for action in actions if action.kind == "Override"]
    signals = [_SIGKILL if action.kind == "Sigkill" else action.signal for action in actions if _signals(action)]
    return Verdict(errors[0] if errors else None, tuple(dict.fromkeys(signals)))


def _signals(action: Action) -> bool:
    return action.kind in ("Sigkill", "Signal")
