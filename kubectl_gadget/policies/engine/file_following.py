"""FollowFD, UnfollowFD, CopyFD: which argument is the file, and which hooks see followed files only.

What is followed is the kernel's object of an open file, so a duplicated descriptor needs nothing (CopyFD), and a file
is forgotten with its last descriptor, whatever UnfollowFD says before. The trap: in a policy that follows files, an
`fd` means one of those, or each write to a pipe would be an event; that is how such policies were always read.
"""

from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.model import Action, Argument, Hook, Policy
from kubectl_gadget.policies.read.argument_types import ARGUMENT_TYPES

KINDS = ("FollowFD", "UnfollowFD", "CopyFD")
FILE_ID = 11
"""The number of a file that says whether it is followed (POLICY_FILE_ID)."""
_FILES = ("file", "fd", "kiocb")


def follows(policy: Policy) -> bool:
    """Whether it follows files at all."""
    return any(action.kind == "FollowFD" for hook in policy.hooks for action in hook.all_actions)


def file_position(hook: Hook, action: Action) -> int:
    """The place among the hook's arguments of the file that an action is about. Raises UsageError."""
    named = (action.name, action.descriptor) if action.kind == "FollowFD" else (action.descriptor, action.name)
    places = {argument.index: place for place, argument in enumerate(hook.arguments)}
    found = [places[index] for index in named if index in places]
    for place in found:
        if hook.arguments[place].type in _FILES:
            return place
    for place in found:
        if ARGUMENT_TYPES[hook.arguments[place].type].group == "number":
            return place
    what = "argFd and argName name no argument that is a file or a descriptor"
    raise UsageError(f"{action.place}: {action.kind}: {what}")


def with_files(hook: Hook) -> tuple[Argument, ...]:
    """The hook's arguments; numbers that an action calls descriptors are read as such."""
    arguments = list(hook.arguments)
    for action in hook.all_actions:
        if action.kind in KINDS:
            place = file_position(hook, action)
            if arguments[place].type not in _FILES:
                arguments[place] = replace(arguments[place], type="fd")
    return tuple(arguments)


def followed_only(policy: Policy, hook: Hook) -> list[int]:
    """The places of arguments that have to be followed files for any selector of the hook to match."""
    if not follows(policy) or any(action.kind == "FollowFD" for action in hook.all_actions):
        return []
    return [place for place, argument in enumerate(with_files(hook)) if argument.type == "fd"]
