"""Which of what happened is told.

The trap: what is not told must still have gone into the table of processes, so it is chosen only after the join.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, Happening
from kubectl_gadget.policy_events.event import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import StoryEvent


def event_type(happening: Happening) -> str:
    """`process_exec`, as JSON names it; empty for a fork, which is not told."""
    if isinstance(happening, PolicyEvent):
        return f"process_{happening.hook}"
    if isinstance(happening, FileEvent):
        return "process_file"
    if isinstance(happening, ConnectionEvent):
        return f"process_{happening.operation}"
    return {"exec": "process_exec", "running": "process_exec", "exit": "process_exit"}.get(happening.operation, "")


_FROM_BEFORE = ("running", "is open")


@dataclass(frozen=True)
class Choice:
    """Empty means any."""

    process: re.Pattern[str] | None = None
    """of the binary"""
    pod: re.Pattern[str] | None = None
    event_types: frozenset[str] = frozenset()
    """as event_type() gives them"""
    policies: frozenset[str] = frozenset()
    """only events of these policies; others than those of policies are not told then"""
    running: bool = False
    """processes and open files that were there before as well"""

    def wants(self, told: "StoryEvent") -> bool:
        """Whether it is told."""
        happening = told.happening
        type = event_type(happening)
        if not type or (self.event_types and type not in self.event_types):
            return False
        if not self.running and not isinstance(happening, PolicyEvent) and happening.operation in _FROM_BEFORE:
            return False
        if self.policies and (not isinstance(happening, PolicyEvent) or happening.policy not in self.policies):
            return False
        if self.process and not self.process.search(told.process.binary or ""):
            return False
        return not (self.pod and not self.pod.search(told.container.pod))


EVERYTHING = Choice()
