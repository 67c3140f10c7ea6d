"""What one run asks of every node's agent: the content of RUN frames, and their BPF objects.

The trap: nodes only send it, and request.py, which builds it, imports what they do not need.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.run.live_tables import LiveTables
from kubectl_gadget.wire.client_messages import AnyGadget, FilterSpec, Run
from kubectl_gadget.wire.frames import FrameType, encode


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
    _latest: dict[str, tuple[Run, bytes]] = field(default_factory=dict)
    """by architecture, what a node was asked last, and the frames: half a megabyte that is the same for most nodes"""

    def frames(self, gadgets: Sequence[AnyGadget], filter: FilterSpec, architecture: str) -> bytes:
        """Returns the frames OBJECT and RUN for one node. `gadgets` are those above, with what differs by node. Raises
        GadgetError."""
        run = Run(gadgets=tuple(gadgets), filter=filter, rest_ms=self.rest_ms)
        asked, frames = self._latest.get(architecture, (None, b""))
        if run != asked:
            objects = (
                encode(FrameType.OBJECT, self.object_bytes(index, architecture)) for index in range(len(self.gadgets))
            )
            frames = b"".join([*objects, encode(FrameType.RUN, run.to_bytes())])
            self._latest[architecture] = run, frames
        return frames
