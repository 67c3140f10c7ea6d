"""Reports hooks whose names are in no known Linux version, or similar to a name of this machine's kernel: most likely
misspelt.

The trap: names differ between kernels, and a newer one may have names that are unknown here. So this is reported only
where no node was asked, and nothing is rejected; most kernel functions and tracepoints are checked only by similarity,
since a function that is merely absent on this machine is not a mistake.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from kubectl_gadget.linux import tables
from kubectl_gadget.policies.language.linux_names import system_calls
from kubectl_gadget.policies.model import Hook, Note, Policy
from kubectl_gadget.similar_names import did_you_mean, meant

_LATEST = "6.18"
_LSM_HOOKS = frozenset(tables.words("lsm_hooks"))
_SYMBOLS = Path("/proc/kallsyms")
_ALIKE = 0.85
"""Ratio of difflib: about one letter in seven differs."""


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


def misspelt(policy: Policy) -> Iterator[Note]:
    """Notes on the policy's functions that look like another one of this machine's kernel; nothing where it hides its
    symbols."""
    named = [hook for hook in policy.hooks if hook.kind in ("kprobe", "fentry")]
    named = [hook for hook in named if not (hook.syscall or hook.generated or hook.ignore_missing)]
    known = _own_symbols() if named else set()
    for hook in named:
        if hook.target not in known and (near := meant(hook.target, known, _ALIKE)):
            yield Note(hook.place, f"this machine's kernel has no function {hook.target}{near}")


def _own_symbols() -> set[str]:
    try:
        with _SYMBOLS.open(encoding="ascii", errors="replace") as file:
            return {line.split(maxsplit=3)[2] for line in file}
    except OSError:
        return set()
