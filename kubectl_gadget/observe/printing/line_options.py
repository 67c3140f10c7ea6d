"""Names of a story's options. They are here and not where they are used, since the command line needs them at each
TAB."""

from dataclasses import dataclass

EVENT_TYPES = (
    "exec",
    "exit",
    "kprobe",
    "tracepoint",
    "uprobe",
    "usdt",
    "lsm",
    "loader",
    "file",
    "connect",
    "accept",
    "close",
    "dns",
)
"""As in JSON after `process_`."""
SHOWN = ("pid", "parent", "node", "container", "uid", "policy", "exec-id", "file-id", "flow-id", "admin")
"""Details that lines can show in addition to their shape."""


@dataclass(frozen=True)
class LineOptions:
    """What lines show in addition to their shape."""

    timestamps: bool = False
    shown: frozenset[str] = frozenset()
    """members of SHOWN"""
    stacks: bool = True
    color: bool = False
