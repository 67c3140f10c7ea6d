"""What one run asks of every node's agent: the content of RUN frames and the BPF objects that belong to them.

The trap: request.py builds it and needs numpy for that; nodes only send it, so it has a module of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.session.tables import LiveTables
from kubectl_gadget.wire.client_messages import AnyGadget


@dataclass(frozen=True)
class RunRequest:
    """What is asked of every node's agent."""

    gadgets: Sequence[AnyGadget]
    """the entries of RUN's `gadgets`"""
    object_bytes: Callable[[int, str], bytes]
    """(index of the gadget, architecture) → its BPF object. Raises GadgetError when there is none"""
    tables: Mapping[int, LiveTables] = field(default_factory=dict)
    """by the gadget's index, what is to be kept up to date in its tables"""
