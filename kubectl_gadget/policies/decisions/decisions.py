"""Which selector of a hook counts for a call. The rules: `kubectl_gadget.policies.model`.

Nothing of this runs on a node, and it shares nothing with the engine's tables, which tests compare with it. The trap: a
value that is not known (`Undecided`) leaves a selector open only if no other filter of it excludes the call.
"""

from collections.abc import Iterable

from kubectl_gadget.policies.decisions.calls import Call, Undecided
from kubectl_gadget.policies.decisions.filters import filter_matches
from kubectl_gadget.policies.model import Hook, HookFilter


def first_match(hook: Hook, call: Call, at_return: bool = False) -> int | None:
    """The position of the first selector that matches, at the call or at its return. 0 for a hook without selectors;
    None when none matches. Raises Undecided."""
    if not hook.selectors:
        return 0
    for position, selector in enumerate(hook.selectors):
        if all_match((*selector.filters, *(selector.return_filters if at_return else ())), hook, call):
            return position
    return None


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
