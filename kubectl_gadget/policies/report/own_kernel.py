"""What this machine's kernel knows of the functions that a policy names: a hint where no node was asked.

The trap: nodes may have another kernel, so a name that is only absent here is not a mistake. What is reported is a name
that looks like one that is here, which was then most likely meant.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

from kubectl_gadget.policies.model import Note, Policy

_SYMBOLS = Path("/proc/kallsyms")
_ALIKE = 0.85
"""Of difflib: one letter of seven."""


def misspelt(policy: Policy, symbols: Path = _SYMBOLS) -> Iterator[Note]:
    """The policy's functions that look like another one. None where the kernel tells no names."""
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
