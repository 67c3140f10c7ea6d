"""FollowFD, UnfollowFD, CopyFD: which argument is the file, and which hooks match followed files only.

The engine follows the kernel's object of an open file. A duplicated descriptor therefore needs no action (CopyFD), and
a file is forgotten when its last descriptor is closed, whatever UnfollowFD says before. The trap: in a policy that
follows files, an `fd` argument matches followed files only, or each write to a pipe would be an event; such policies
have always been read this way.
"""

from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Action, Argument, Hook, Policy

KINDS = ("FollowFD", "UnfollowFD", "CopyFD")
FILE_ID = 11
"""The number within a file's value that identifies it while it is followed (POLICY_FILE_ID)."""
_FILES = ("file", "fd", "kiocb")


def follows(policy: Policy) -> bool:
    return any(action.kind == "FollowFD" for hook in policy.hooks for action in hook.all_actions)


def file_position(hook: Hook, action: Action) -> int:
    """The position, among the hook's arguments, of the file that an action refers to. Raises UsageError."""
    named = (action.name, action.descriptor) if action.kind == "FollowFD" else (action.descriptor, action.name)
    places = {argument.index: place for place, argument in enumerate(hook.arguments)}
    found = [places[index] for index in named if index in places]
    for place in found:
        if hook.arguments[place].type in _FILES:
            return place
    for place in found:
        if ARGUMENT_TYPES[hook.arguments[place].type].group == "number":
            return place
    what = "argFd and argName do not name arguments that are a file or a descriptor"
    raise UsageError(f"{action.place}: {action.kind}: {what}")


def with_files(hook: Hook) -> tuple[Argument, ...]:
    """The hook's arguments; numbers that an action uses as descriptors are read as descriptors."""
    arguments = list(hook.arguments)
    for action in hook.all_actions:
        if action.kind in KINDS:
            place = file_position(hook, action)
            if arguments[place].type not in _FILES:
                arguments[place] = replace(arguments[place], type="fd")
    return tuple(arguments)


def followed_only(policy: Policy, hook: Hook) -> list[int]:
    """The positions of the arguments that have to be followed files before any selector of the hook can match."""
    if not follows(policy) or any(action.kind == "FollowFD" for action in hook.all_actions):
        return []
    return [place for place, argument in enumerate(with_files(hook)) if argument.type == "fd"]
