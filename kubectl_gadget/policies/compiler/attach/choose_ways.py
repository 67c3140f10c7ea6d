"""Chooses the ways to a hook that all its policies accept.

The trap: a policy that denies accepts only ways that can deny, unless --allow-weaker is given.
"""

from collections.abc import Sequence
from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach.hook_ways import HookWay, ways
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions, PolicyAtHook, SelectorAtHook

_METHODS = {"fmod-ret": "on_fmod_ret", "override-return": "on_kprobe_override"}
"""The program for each override-method."""


def choose_ways(
    name: str,
    entries: Sequence[PolicyAtHook],
    selectors: Sequence[SelectorAtHook],
    denies: bool,
    options: CompilerOptions,
) -> list[HookWay]:
    """The ways, best first. `name` is the hook's name, for errors. Raises UsageError when calls cannot be denied
    there."""
    hook = entries[0].hook
    found = ways(hook, hook.returns and not entries[0].at_call, denies)
    if denies and hook.kind != "lsm":
        found = _by_method(name, entries, found)
    if any(action.file_hash for one in selectors for action in one.selector.all_actions):
        # Computing the hash may wait for the disk, and only a sleepable program may do so.
        found = [replace(way, program="on_lsm_sleepable") for way in found if way.kind == "lsm"]
    able = [way for way in found if way.denies]
    if not denies or options.allow_weaker:
        return found
    if able:
        return able
    for one in selectors:
        if any(action.kind == "Override" for action in one.selector.all_actions):
            raise UsageError(
                f"{one.selector.place}: {name} cannot be overridden", "a hook of a security module (lsmhooks)"
            )
    return found


def _by_method(name: str, entries: Sequence[PolicyAtHook], found: list[HookWay]) -> list[HookWay]:
    """The ways that the policies' override-method allows."""
    methods = {entry.policy.options.override_method for entry in entries} - {None}
    if not methods:
        return found
    if len(methods) > 1:
        wanted = " and ".join(sorted(map(str, methods)))
        raise UsageError(
            f"{entries[0].hook.place}: {name}: policies give one hook different values of override-method: {wanted}"
        )
    program = _METHODS[str(methods.pop())]
    return [way for way in found if way.program == program or not way.denies]
