"""Suggestions for nodes that support no program that could deny the call: REMEDY of docs/protocol.md.

Only the node knows which suggestion helps: it tries the ways of each. The trap: a hook that does not exist can neither
deny nor send signals.
"""

from collections.abc import Sequence

from kubectl_gadget.policies.compiler.attach.hook_ways import HookWay, ways
from kubectl_gadget.policies.language.linux_names import lsm_hook
from kubectl_gadget.policies.model import Hook
from kubectl_gadget.wire.policy_messages import Remedy

_ANY_LSM_HOOK, _ANY_FUNCTION = Hook("lsm", "file_open"), Hook("kprobe", "vfs_read")


def remedies(hook: Hook, weaker: Sequence[HookWay], signals: bool) -> tuple[Remedy, ...]:
    """`weaker` are the ways to this hook that only observe the call; `signals`: a policy sends a signal there."""
    found = []
    if weaker:
        what = "send signals, which may come too late" if signals else "watch"
        found.append(_remedy(f"--allow-weaker, which lets such nodes only {what}", weaker))
    if not hook.probe and hook.kind != "lsm" and lsm_hook(hook.target) is None:
        able = [way for way in ways(_ANY_LSM_HOOK, False, True) if way.denies]
        found.append(_remedy("a policy with lsmhooks, where such nodes can deny", able))
    return tuple(found)


def of_a_list() -> Remedy:
    """The suggestion where one program cannot be attached to many functions."""
    return _remedy(
        "a list with `values`, the functions' names, which have a program each", ways(_ANY_FUNCTION, False, False)
    )


def _remedy(text: str, ways: Sequence[HookWay]) -> Remedy:
    """One suggestion. Ways in programs are left out, since they cannot be tried without a file."""
    return Remedy(text=text, ways=tuple(way.message() for way in ways if not way.probe))
