"""TrackSock and UntrackSock: which socket an action refers to, and where events are attributed to a socket's owner.

A policy that tracks sockets has programs of its own at all its hooks: events there belong to the socket's owner, to
whom the policy has to apply, and not to the process that runs. The trap: the owner of a socket that a hook tracks
unconditionally is not looked up, since it might be that of an earlier socket at the same address.
"""

from collections.abc import Iterable

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Action, Hook, Policy

MASKS = {"TrackSock": "track", "UntrackSock": "untrack"}
KINDS = tuple(MASKS)
RETURNED = -1
"""Instead of an argument's position: the function's return value."""


def tracks(policy: Policy) -> bool:
    return any(kind == "TrackSock" for hook in policy.hooks for kind in _kinds(hook))


def socket_position(hook: Hook, action: Action) -> int:
    """The position, among the hook's arguments, of the socket that an action refers to. Raises UsageError."""
    for place, argument in enumerate(hook.arguments):
        if argument.index == action.socket and ARGUMENT_TYPES[argument.type].group == "socket":
            return place
    what = f"argSock {action.socket} is not an argument that is a sock, a socket or an skb"
    raise UsageError(f"{action.place}: {action.kind}: {what}")


def made_by(hook: Hook, at_return: bool) -> set[int]:
    """The positions of sockets that the hook tracks whichever selector matches; RETURNED may be among them."""
    found = {RETURNED} if at_return and hook.return_argument_action == "TrackSock" else set()
    each = [
        {socket_position(hook, action) for action in selector.all_actions if action.kind == "TrackSock"}
        for selector in hook.selectors
    ]
    return found | (set.intersection(*each) if each else set())


def check(hook: Hook) -> None:
    """Raises UsageError when an action names no socket."""
    for action in hook.all_actions:
        if action.kind in KINDS:
            socket_position(hook, action)
    returned = hook.return_argument
    if hook.return_argument_action in KINDS and (returned is None or ARGUMENT_TYPES[returned.type].group != "socket"):
        what = "needs a returnArg that is a sock, a socket or an skb"
        raise UsageError(f"{hook.place}: returnArgAction {hook.return_argument_action} {what}")


def _kinds(hook: Hook) -> Iterable[str]:
    yield hook.return_argument_action
    yield from (action.kind for action in hook.all_actions)
