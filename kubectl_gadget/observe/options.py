"""What may be asked of a story, by name. Here and not beside its use, since the command line reads it at each TAB."""

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
"""What lines may have beyond their shape."""


@dataclass(frozen=True)
class LineOptions:
    """What a line has beyond its shape."""

    timestamps: bool = False
    shown: frozenset[str] = frozenset()
    """of SHOWN"""
    stacks: bool = True
    color: bool = False
