"""Walks over the map `gadget_walked` of a gadget that sends events: run each second, and once more at the end.

They send what programs have only counted. The last walk comes after all programs were detached, so that it misses no
count.
"""

from kubectl_gadget.agent.bpf.object import BY_HAND, BpfObject

_SECONDS = 1.0


class MapWalks:
    """The walks of one object."""

    def __init__(self, object: BpfObject) -> None:
        self._object = object
        self.programs = [name for name in object.chosen if object.section(name) == BY_HAND]
        self._due = 0.0

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if now >= self._due:
            self._due = now + _SECONDS
            self._walk()

    def detach(self) -> None:
        """Detaches the object, and walks once more."""
        self._object.detach()
        self._walk()

    def _walk(self) -> None:
        for program in self.programs:
            self._object.run(program)
