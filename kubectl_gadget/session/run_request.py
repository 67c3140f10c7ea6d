"""What one run asks of every node's agent: the content of RUN frames, and their BPF objects.

The trap: request.py builds it and needs numpy for that; nodes only send it, so it has its own module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.session.live_tables import LiveTables
from kubectl_gadget.wire.client_messages import AnyGadget


@dataclass(frozen=True)
class RunRequest:
    """The request to every node's agent."""

    gadgets: Sequence[AnyGadget]
    """the entries of RUN's `gadgets`"""
    object_bytes: Callable[[int, str], bytes]
    """(index of the gadget, architecture) → its BPF object. Raises GadgetError when there is none"""
    tables: Mapping[int, LiveTables] = field(default_factory=dict)
    """by the gadget's index, the tables to keep up to date"""
    rest_ms: int = 50
    """see Run"""
