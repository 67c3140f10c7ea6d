"""The owners of sockets, kept once for all gadgets of a run.

    owners = SocketOwners()                      # one for all objects of a run
    object = BpfObject(elf, name); …set its variables…
    owners.share(object, filters)
    object.load(); …attach its programs…
    owners.keep(object, filters)
    owners.stopped(object, filters)              # from time to time

Several gadgets know a socket's process from the same programs, at each socket that is made, connected, accepted and
closed (bpf/include/gadget/packet_owner.h). Those of the first gadget that keeps all owners do it for those that come
after it, which use its maps.

The trap: a program leaves out processes that its gadget's filters exclude, so gadgets share only with the same filters.
"""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.agent.bpf.object import BpfObject

_KEPT = ".rodata.owners"
"""The map with an object's `gadget_owners_kept`."""
_MAPS = ("gadget_owners", "gadget_executed", ".bss.execs")
_PROGRAMS = frozenset(
    {
        "socket_made",
        "socket_released",
        "connection_gone",
        "connecting_v4",
        "connecting_v6",
        "sending_v4",
        "sending_v6",
        "accepted",
        "accepted4",
        "owner_executes",
        "find_users",
    }
)
"""Programs that do the same in each object that has them."""


class SocketOwners:
    """The objects belong to the caller. `filters` are values of the object's variables gadget_filter_…, by name."""

    def __init__(self) -> None:
        self._keeper: BpfObject | None = None
        self._filters: Mapping[str, Any] = {}

    def share(self, object: BpfObject, filters: Mapping[str, Any]) -> None:
        """Has the object use the kept owners, without programs of its own for them. Call it before the object is
        loaded."""
        if self._keeper is None or not self._may_share(object, filters):
            return
        object.leave_out(_PROGRAMS & set(self._keeper.chosen))
        object.reuse({name: self._keeper.required_map(name).fd for name in _MAPS})

    def keep(self, object: BpfObject, filters: Mapping[str, Any]) -> None:
        """Has other objects use this one's owners, if it keeps all. Call it when the programs are attached."""
        kept = object.map(_KEPT)
        if self._keeper is None and kept and kept.text() == "all" and "socket_made" in object.chosen:
            self._keeper, self._filters = object, filters

    def stopped(self, object: BpfObject, filters: Mapping[str, Any]) -> dict[str, str]:
        """As BpfObject.stopped(), for the programs of another object that keep the owners for this one."""
        if self._keeper is None or not self._may_share(object, filters):
            return {}
        kept = _PROGRAMS.intersection(object.program_names).difference(object.chosen)
        return {program: why for program, why in self._keeper.stopped().items() if program in kept}

    def _may_share(self, object: BpfObject, filters: Mapping[str, Any]) -> bool:
        return filters == self._filters and object.map(_KEPT) is not None
