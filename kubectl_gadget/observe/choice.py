"""Selects the events of a story to show.

The trap: an event that is not shown must still reach the table of processes, so the selection comes after the join.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, Happening
from kubectl_gadget.wire.policy_events.event import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import StoryEvent


def event_type(happening: Happening) -> str:
    """The name in JSON, such as `process_exec`; empty for a fork, which is never shown."""
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
    """The conditions for an event to be shown. Empty means any."""

    process: re.Pattern[str] | None = None
    """matches the binary's path"""
    pod: re.Pattern[str] | None = None
    event_types: frozenset[str] = frozenset()
    """names as returned by event_type()"""
    policies: frozenset[str] = frozenset()
    """show only events of these policies, and no events of other kinds"""
    running: bool = False
    """include processes and open files from before the run"""

    def wants(self, entry: "StoryEvent") -> bool:
        happening = entry.happening
        type = event_type(happening)
        if not type or (self.event_types and type not in self.event_types):
            return False
        if not self.running and not isinstance(happening, PolicyEvent) and happening.operation in _FROM_BEFORE:
            return False
        if self.policies and (not isinstance(happening, PolicyEvent) or happening.policy not in self.policies):
            return False
        if self.process and not self.process.search(entry.process.binary or ""):
            return False
        return not (self.pod and not self.pod.search(entry.container.pod))


EVERYTHING = Choice()
