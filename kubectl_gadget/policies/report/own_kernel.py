"""Checks the functions that a policy names against this machine's kernel: a hint where no node was asked.

The trap: nodes may run another kernel, so a name that is merely absent here is not a mistake. Only names similar to one
that exists here are reported, since that one was most likely meant.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

from kubectl_gadget.policies.model import Note, Policy

_SYMBOLS = Path("/proc/kallsyms")
_ALIKE = 0.85
"""Ratio of difflib: about one letter in seven differs."""


def misspelt(policy: Policy, symbols: Path = _SYMBOLS) -> Iterator[Note]:
    """Notes on the policy's functions that look like another one; nothing where the kernel hides its symbols."""
    named = [hook for hook in policy.hooks if hook.kind in ("kprobe", "fentry")]
    named = [hook for hook in named if not (hook.syscall or hook.generated or hook.ignore_missing)]
    known = _names(symbols) if named else set()
    for hook in named:
        near = [] if hook.target in known else difflib.get_close_matches(hook.target, known, 2, _ALIKE)
        if near:
            what = f"this machine's kernel has no function {hook.target}; did you mean {' or '.join(near)}?"
            yield Note(hook.place, what)


def _names(symbols: Path) -> set[str]:
    try:
        with symbols.open(encoding="ascii", errors="replace") as file:
            return {line.split(maxsplit=3)[2] for line in file}
    except OSError:
        return set()
