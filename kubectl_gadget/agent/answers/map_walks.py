"""Iterators over the map `gadget_walked` of a gadget that sends events: run each second, and once more at the end.

They send what programs have only counted. The trap: the last walk has to come after all programs were detached, or what
they count until then is lost; so iterators are opened before, since their links end with all others.
"""

from kubectl_gadget.agent.bpf.object import MAP_ITERATOR, BpfObject

_SECONDS = 1.0


class MapWalks:
    """The map iterators of one object."""

    def __init__(self, object: BpfObject) -> None:
        self._object = object
        self.programs = [name for name in object.chosen if object.section(name) == MAP_ITERATOR]
        self._due = 0.0

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if now >= self._due:
            self._due = now + _SECONDS
            for program in self.programs:
                self._object.iterate(program)

    def detach(self) -> None:
        """Detaches the object, and runs the iterators once more."""
        iterators = [self._object.open_iterator(program) for program in self.programs]
        self._object.detach()
        for iterator in iterators:
            for _ in self._object.read_iterator(iterator):
                pass
