"""Which selectors of a hook match a call. The rules: `kubectl_gadget.policies.model`.

Nothing of this runs on a node, and it shares nothing with the engine's tables, which tests compare with it. The trap: a
value that is not known (`Undecided`) leaves a selector open only if no other filter of it excludes the call.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_gadget.policies.decisions.calls import Call, Undecided
from kubectl_gadget.policies.decisions.filters import filter_matches
from kubectl_gadget.policies.model import Action, Hook, HookFilter, Selector


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


def decide_hook(policy: str, hook: Hook, call: Call) -> Decision | None:
    """What a hook says at the call; None when no selector matches. Raises Undecided."""
    if not hook.selectors:
        return Decision(policy, None, ())
    for position, selector in enumerate(hook.selectors):
        if selector_matches(selector, hook, call):
            return Decision(policy, position, selector.actions)
    return None


def decide_return(policy: str, hook: Hook, call: Call) -> Decision | None:
    """What a hook with `returns` says at the return, with `return_actions`; None when no selector matches. Raises
    Undecided."""
    if not hook.selectors:
        return Decision(policy, None, ())
    for position, selector in enumerate(hook.selectors):
        if all_match((*selector.filters, *selector.return_filters), hook, call):
            return Decision(policy, position, selector.return_actions)
    return None


def matching(hook: Hook, call: Call) -> list[int]:
    """The positions of all selectors that match at the call; the first is the one that counts. Raises Undecided."""
    return [position for position, selector in enumerate(hook.selectors) if selector_matches(selector, hook, call)]


def selector_matches(selector: Selector, hook: Hook, call: Call) -> bool:
    """Whether all filters match that can be asked at the call. Raises Undecided."""
    return all_match(selector.filters, hook, call)


def all_match(filters: Iterable[HookFilter], hook: Hook, call: Call) -> bool:
    """Whether all of these match; False as soon as one does not, whatever the others need. Raises Undecided."""
    undecided: Undecided | None = None
    for one in filters:
        try:
            if not filter_matches(one, hook, call):
                return False
        except Undecided as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided
    return True
