"""What a run knows of one node and asks of it, and the frames that the client itself puts into the backlog.

The trap: those frames stand among an agent's own, so their types must be ones that no agent can send.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.wire import Frame

DETACHED = Frame(-1, b"")
"""What the client itself puts behind a connection's last frame, so that the pipeline waits no longer for that node.
No agent can send it, since types are not negative on the wire."""
GAP = -2
"""Type of a frame of the client's own: a span is missing here, `{"seconds":25.1, "until_ns":…}`."""
SELECTED = -3
"""Type of a frame of the client's own: FILTER of this node from here on. It stands among the node's frames, so a
replay selects what the run did."""


@dataclass
class NodeState:
    """What is known of one node. Written by the event loop, read by the summary."""

    name: str
    attached: bool = False
    ever_attached: bool = False
    error: GadgetError | None = None
    """why it does not run now; None while it does, or before it began"""
    given_up: bool = False
    """it will not be tried again"""
    gaps: int = 0
    gap_seconds: float = 0.0
    hello: dict[str, Any] = field(default_factory=dict)
    started: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    """of the connection that is open now"""
    past_stats: list[dict[str, Any]] = field(default_factory=list)
    """last statistics of connections that were lost"""


def hook_lines(started: dict[str, Any]) -> Iterator[str]:
    """Which hooks of each gadget this node's kernel has loaded, and which it refused."""
    for gadget in started.get("gadgets", ()):
        programs = gadget.get("programs", ())
        hooks = [str(hook) for program in programs for hook in program.get("hooks", ())]
        yield f"{gadget.get('name')} hooks {', '.join(hooks)}"
        for skipped in (entry for program in programs for entry in program.get("skipped", ())):
            yield f"{gadget.get('name')} did without {skipped.get('program')}: {skipped.get('why')}"


def method_lines(started: dict[str, Any]) -> Iterator[str]:
    """What is in force at each hook of policies, where it is more than watching."""
    for program in (program for gadget in started.get("gadgets", ()) for program in gadget.get("programs", ())):
        method = program.get("method", "observes")
        if method != "observes":
            yield f"{method} at {', '.join(map(str, program.get('hooks', ())))}"
