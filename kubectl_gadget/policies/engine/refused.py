"""Actions of the field's other engine that this one does not carry out, and why: refused by name, never ignored."""

from typing import NoReturn

from kubectl_gadget.errors import UsageError

_NO_TABLE = (
    "it credits what a socket does later to the process that made it, by a table that forgets, and a socket that is "
    "handed on deceives it; events here have the process that acts, and connections their own"
)
_REFUSED = {"TrackSock": _NO_TABLE, "UntrackSock": _NO_TABLE}
_INSTEAD = "leave it out; observe -o json gives events to a program of yours, and observe --flows tells connections"


def is_refused(action: str) -> bool:
    """Whether it is one of them."""
    return action in _REFUSED


def refuse(place: object, action: str) -> NoReturn:
    """Raises UsageError."""
    raise UsageError(f"{place}: {action} is not supported: {_REFUSED[action]}", _INSTEAD)
