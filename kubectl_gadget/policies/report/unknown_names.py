"""Reports hooks whose names are in no known Linux version: most likely misspelt.

The trap: names differ between kernels, and a newer one may have names that are unknown here. So this is reported only
where no node was asked, and nothing is rejected; most kernel functions and tracepoints are not checked at all.
"""

from collections.abc import Iterable

from kubectl_gadget.events.linux import tables
from kubectl_gadget.policies.language.linux_names import system_calls
from kubectl_gadget.policies.model import Hook, Note
from kubectl_gadget.similar_names import did_you_mean

_LATEST = "6.18"
_LSM_HOOKS = frozenset(tables.words("lsm_hooks"))


def unknown_names(hook: Hook) -> Iterable[Note]:
    """At most one note, which suggests a similar name."""
    subsystem, _, event = hook.target.rpartition("/")
    call = event.removeprefix("sys_enter_").removeprefix("sys_exit_")
    if hook.kind == "lsm" and hook.target not in _LSM_HOOKS:
        text = f"no Linux up to {_LATEST} has the LSM hook {hook.target}{nearest_lsm_hook(hook.target)}"
    elif subsystem == "syscalls" and call not in system_calls() | system_calls("i386"):
        text = f"no Linux up to {_LATEST} has the system call {call}{did_you_mean(call, system_calls())}"
    else:
        return
    yield Note(hook.place, text)


def nearest_lsm_hook(name: str) -> str:
    """`; did you mean …?`, or an empty text."""
    return "" if name in _LSM_HOOKS else did_you_mean(name, _LSM_HOOKS)
