"""The owners of sockets, kept once for all gadgets of a run.

    owners = SocketOwners()                      # one for all objects of a run
    object = BpfObject(elf, name); …set its variables…
    owners.share(object, filters)
    object.load(); …attach its programs…
    owners.keep(object, filters)
    owners.stopped(object, filters)              # from time to time

Several gadgets find a socket's process with the same programs, which run whenever a socket is created, connected,
accepted or closed (bpf/include/gadget/network/packet_owner.h). Only the first gadget that keeps all owners runs them;
later ones use its maps. If trace tcp runs, it keeps the owners of connections, and that first gadget uses its map.

The traps: the programs leave out processes that their gadget's filters exclude, so gadgets share only with the same
filters. With a filter by name, trace tcp keeps fewer owners than gadgets that apply the filter to each row.
"""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.agent.bpf.object import BpfObject

_KEPT = ".rodata.owners"
"""The map with an object's `gadget_owners_kept`."""
_OWNERS = "gadget_owners"
_SHARES = "gadget_owner_shares"
_MAPS = (_OWNERS, _SHARES, "gadget_executed", ".bss.execs")
_ALL, _CONNECTIONS = "all", "connections"
"""What `gadget_owners_kept` says in a gadget that keeps all owners, and in trace tcp."""
_BY_NAME = "gadget_filter_comm"
_KEPT_ELSEWHERE = "gadget_connections_kept"
_DONE_BY_TRACE_TCP = frozenset({"connection_gone"})
"""Programs that are not needed where trace tcp keeps the owners of connections."""
_DETACHABLE_OF_TRACE_TCP = frozenset({"accept_exit", "accept4_exit"})
"""Programs of trace tcp that keep owners, and that another process can detach."""
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
        self._connections: BpfObject | None = None
        """trace tcp's object, which keeps the owners of connections for the keeper and for users of its maps"""
        self._filters: Mapping[str, Any] = {}

    def share(self, object: BpfObject, filters: Mapping[str, Any]) -> None:
        """Makes the object use the owners that are kept already, and leaves out its own programs for them. Call it
        before the object is loaded."""
        if not self._may_share(object, filters):
            return
        if self._keeper:
            object.leave_out(_PROGRAMS & set(self._keeper.chosen))
            object.reuse({name: self._keeper.required_map(name).fd for name in _MAPS})
        if self._connections:
            object.leave_out(_DONE_BY_TRACE_TCP)
            object.reuse({name: self._connections.required_map(name).fd for name in (_OWNERS, _SHARES)})
            object.set_constant(_KEPT_ELSEWHERE, 1)

    def keep(self, object: BpfObject, filters: Mapping[str, Any]) -> None:
        """Makes later objects use this one's owners, if it keeps all of them, or those of connections. Call it when
        the programs are attached."""
        kept = _kept_by(object)
        if kept == _CONNECTIONS and not (self._keeper or self._connections or _BY_NAME in filters):
            self._connections, self._filters = object, filters
        elif self._keeper is None and kept == _ALL and "socket_made" in object.chosen:
            if filters != self._filters:
                self._connections = None
            self._keeper, self._filters = object, filters

    def stopped(self, object: BpfObject, filters: Mapping[str, Any]) -> dict[str, str]:
        """As BpfObject.stopped(), for the programs of another object that keep the owners for this one."""
        if not self._may_share(object, filters):
            return {}
        left_out = _PROGRAMS.intersection(object.program_names).difference(object.chosen)
        found: dict[str, str] = {}
        if self._keeper:
            found |= {program: why for program, why in self._keeper.stopped().items() if program in left_out}
        if self._connections:
            stopped = self._connections.stopped()
            found |= {program: why for program, why in stopped.items() if program in _DETACHABLE_OF_TRACE_TCP}
        return found

    def _may_share(self, object: BpfObject, filters: Mapping[str, Any]) -> bool:
        kept = _kept_by(object)
        if filters != self._filters or kept in (None, _CONNECTIONS):
            return False
        return self._keeper is not None or (self._connections is not None and kept == _ALL)


def _kept_by(object: BpfObject) -> str | None:
    """Returns which owners the object keeps; None when it does not say."""
    kept = object.map(_KEPT)
    return kept.text() if kept else None
