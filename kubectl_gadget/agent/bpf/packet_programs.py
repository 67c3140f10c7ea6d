"""The parts that gadgets for packets share in a run: PacketDispatcher calls their programs, and SocketOwners finds the
processes.

PacketDispatcher calls several gadgets' programs for packets and closed sockets from one program per direction of
packets, and one for sockets (bpf/packets.bpf.c).

    packets = PacketDispatcher(is_needed=True)                   # one for all objects of a run
    object = BpfObject(elf, name); …set its variables…
    packets.adopt(object)
    object.load(); object.attach(program)

Most packets belong to TCP streams, in which most gadgets have nothing to read, and starting a program costs more than
what it then does. A gadget's object says for which packets its programs are called
(GADGET_PACKETS_OF in bpf/include/gadget/network/packet_calls.h).

All of this only saves time. The kernel runs an object's programs itself, and they see the same packets, when it refuses
the program that calls them, and when the object does not say which packets it wants.
"""

import ctypes
import struct
from collections.abc import Mapping
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import REMOVED
from kubectl_gadget.agent.bpf.maps import NumberMap
from kubectl_gadget.agent.bpf.object import BpfObject, Turns, own_object
from kubectl_gadget.errors import AgentError

_WORDS = ".rodata.packets"
"""The map with an object's GADGET_PACKETS_OF."""
_WANTED = ".data.wanted"
"""The map with the table of the packets that each gadget wants."""
_QUIET = ".bss.quiet"
"""The map with the sockets that are quiet."""
_PORT = "filter_port"
_GADGETS, _PROTOCOLS = 16, 256
_TCP = 6
_NUMBERS = MappingProxyType({"icmp": 1, "udp": 17, "icmpv6": 58, "sctp": 132})
_HOOKS = MappingProxyType(
    {"cgroup_skb/egress": "sent", "cgroup_skb/ingress": "received", "cgroup/sock_release": "closed"}
)
"""The kernel's hooks whose programs it calls, by section: a packet is sent or received, or a socket closed."""
_PROGRAMS = tuple(f"any_{hook}" for hook in _HOOKS.values())
"""The programs that call the others."""


class WantedPackets(NamedTuple):
    """The packets for which an object's programs are called. `words` are the words of GADGET_PACKETS_OF."""

    words: frozenset[str]
    port: int
    """0: any"""

    @classmethod
    def of(cls, object: BpfObject) -> "WantedPackets | None":
        """Returns None when the object does not say. Call it before the object is loaded, when its variables are
        set."""
        if not (words := object.map(_WORDS)):
            return None
        wanted = frozenset(words.text().split())
        port = int.from_bytes(object.constant(_PORT), "little") if "port" in wanted else 0
        return cls(wanted, port)


class _Table(ctypes.Structure):
    """The variable `wanted` of bpf/packets.bpf.c."""

    _fields_ = (
        ("of_protocol", ctypes.c_uint32 * _PROTOCOLS),
        ("of_others", ctypes.c_uint32),
        ("with_port", ctypes.c_uint32),
        ("unquiet", ctypes.c_uint32),
        ("port", ctypes.c_uint32),
    )


def wanted_table(gadgets: Mapping[int, WantedPackets]) -> bytes:
    """Returns struct wanted: for each kind of packet, a bit per gadget, by the gadgets' numbers."""
    table = _Table()
    for number, wanted in gadgets.items():
        bit = 1 << number
        for protocol in range(_PROTOCOLS):
            if "other" in wanted.words and protocol != _TCP:
                table.of_protocol[protocol] |= bit
        for word in wanted.words & _NUMBERS.keys():
            table.of_protocol[_NUMBERS[word]] |= bit
        table.of_others |= bit * ("other" in wanted.words)
        table.unquiet |= bit * ("unquiet" in wanted.words)
        if "port" in wanted.words and wanted.port and table.port in (0, wanted.port):
            table.port = wanted.port
            table.with_port |= bit
        elif "port" in wanted.words:  # the table has room for one port; programs for other ports see all TCP packets
            table.of_protocol[_TCP] |= bit
    return bytes(table)


class PacketDispatcher:
    """The programs that call the others. Loaded at first use; to be closed after all objects that use it."""

    def __init__(self, is_needed: bool = False) -> None:
        self.is_needed = is_needed
        """False: the kernel runs all programs itself, as when only one gadget reads packets"""
        self._object: BpfObject | None = None
        self._arrays: dict[str, NumberMap] = {}
        """the program arrays, by hook"""
        self._numbers: dict[BpfObject, int] = {}
        """of the objects whose programs are called"""
        self._wanted: dict[int, WantedPackets] = {}
        """of those objects, by number"""
        self._called: dict[BpfObject, dict[str, str]] = {}
        """the hook of each called program"""
        self._quiet: BpfObject | None = None
        """the object that fills the table of quiet sockets"""

    def adopt(self, object: BpfObject) -> None:
        """Calls the object's programs for packets, if the object says which packets it wants. Call it when its
        variables are set, before it is loaded."""
        wanted = WantedPackets.of(object) if self.is_needed and self._has_packets(object) else None
        number = next((number for number in range(_GADGETS) if number not in self._wanted), None)
        if wanted is None or number is None or not self._open():
            return
        if "unquiet" in wanted.words:
            if self._quiet:
                return
            self._quiet = object
            object.required_map(_QUIET).reuse(self._own().required_map(_QUIET).fd)
        self._numbers[object], self._wanted[number] = number, wanted
        object.caller = self

    def add(self, object: BpfObject, program: str) -> bool:
        """Starts to call the program. Returns False when it is not for packets or closed sockets."""
        if object.section(program) not in _HOOKS:
            return False
        hook = _HOOKS[object.section(program)]
        self._own().required_map(f"{hook}_programs").set(self._numbers[object], object.program_fd(program))
        self._called.setdefault(object, {})[program] = hook
        self._write_table()
        for own in self._own().chosen:
            if not self._own().attached(own):
                self._own().attach(own)
        return True

    def calls(self, object: BpfObject, program: str) -> bool:
        """True if the program was added and not removed."""
        return program in self._called.get(object, ())

    def stopped(self, object: BpfObject) -> dict[str, str]:
        """Like BpfObject.stopped(), for the object's programs that were added."""
        called = self._called.get(object)
        if not called:
            return {}
        own = self._own().stopped()
        number = self._numbers[object]
        changed = self._own().required_map(_WANTED).get(bytes(4)) != wanted_table(self._in_use())
        return {
            program: own.get(f"any_{hook}", REMOVED)
            for program, hook in called.items()
            if f"any_{hook}" in own or changed or self._arrays[hook].get(number) != object.id_of(program)
        }

    def remove(self, object: BpfObject) -> bool:
        """Stops calling the object's programs. True when some may still be running: call wait_for_programs() then."""
        called = self._called.pop(object, {})
        number = self._numbers.pop(object, None)
        if number is not None:
            del self._wanted[number]
        if self._quiet is object:
            self._quiet = None
        if called:
            self._write_table()
        for hook in called.values():
            self._own().required_map(f"{hook}_programs").remove(struct.pack("<I", number))
        if self._object and not self._numbers:
            self._object.release()
        return bool(called)

    def close(self) -> None:
        """May be called twice."""
        if self._object:
            self._object.close()
            self._object = None

    def _in_use(self) -> dict[int, WantedPackets]:
        """Returns what the attached objects want, by number."""
        return {self._numbers[object]: self._wanted[self._numbers[object]] for object in self._called}

    def _write_table(self) -> None:
        self._own().required_map(_WANTED).put(bytes(4), wanted_table(self._in_use()))

    def _has_packets(self, object: BpfObject) -> bool:
        return any(object.section(program) in _HOOKS for program in object.chosen)

    def _own(self) -> BpfObject:
        if self._object is None:
            raise AgentError("the program that calls others for packets is not loaded")
        return self._object

    def _open(self) -> bool:
        """Loads the calling programs. Returns False when the kernel refuses them."""
        if self._object:
            return True
        try:
            self._object = object = own_object("packets", _PROGRAMS)
        except Failure:
            self.is_needed = False
            return False
        self._arrays = {hook: NumberMap(object.required_map(f"{hook}_programs").fd) for hook in _HOOKS.values()}
        return True


# The owners of sockets, kept by one gadget for all of a run.
#
#     owners = SocketOwners()                      # one for all objects of a run
#     object = BpfObject(elf, name); …set its variables…
#     owners.share(object, filters)                # waits for an object whose owners this one will use
#     object.load(); …attach its programs…
#     owners.keep(object, filters)                 # or owners.give_up(object)
#     owners.stopped(object, filters)              # from time to time
#
# Several gadgets find a socket's process with the same programs, which run whenever a socket is created, connected,
# accepted or closed (bpf/include/gadget/network/packet_owner.h). Only the first gadget that keeps all owners runs
# them; later ones use its maps. If trace tcp runs, it keeps the owners of connections, and that first gadget uses its
# map.
#
# The traps: the programs leave out processes that their gadget's filters exclude, so gadgets share only with the same
# filters. With a filter by name, trace tcp keeps fewer owners than gadgets that apply the filter to each row.

_KEPT = ".rodata.owners"
"""The map with an object's `gadget_owners_kept`."""
_OWNERS = "gadget_owners"
_SHARES = "gadget_owner_shares"
_OWNER_MAPS = (_OWNERS, _SHARES, "gadget_executed", ".bss.execs")
_ALL, _CONNECTIONS = "all", "connections"
"""Values of `gadget_owners_kept` in a gadget that keeps all owners, and in trace tcp."""
_BY_NAME = "gadget_filter_comm"
_KEPT_ELSEWHERE = "gadget_connections_kept"
_DONE_BY_TRACE_TCP = frozenset({"connection_gone"})
"""Programs that are not needed where trace tcp keeps the owners of connections."""
_DETACHABLE_OF_TRACE_TCP = frozenset({"accept_exit", "accept4_exit"})
"""Programs of trace tcp that keep owners, and that another process can detach."""
_OWNER_PROGRAMS = frozenset(
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

    def __init__(self, turns: "Turns | None" = None) -> None:
        self._turns = turns or Turns()
        self._coming: dict[object, tuple[str, Mapping[str, object]]] = {}
        """those that others may have to wait for, in their order, with what they keep, and their filters"""
        self._keeper: BpfObject | None = None
        self._connections: BpfObject | None = None
        """trace tcp's object, which keeps the owners of connections for the keeper and for users of its maps"""
        self._filters: Mapping[str, object] = {}

    def share(self, object: BpfObject, filters: Mapping[str, object], who: object = None) -> None:
        """Makes the object use the owners that are kept already, and leaves out its own programs for them. Call it
        before the object is loaded. Waits until it is known whether objects that came before keep them. `who`: the
        same for each attempt to load a gadget; the first one counts."""
        who, kept = who or object, _kept_by(object)
        before = self._before(who)
        if kept in (_ALL, _CONNECTIONS):
            self._coming.setdefault(who, (kept, filters))
        if kept not in (None, _CONNECTIONS):
            useful = [(_ALL, filters), *([(_CONNECTIONS, filters)] if kept == _ALL else [])]
            self._turns.wait_while(lambda: any(self._coming.get(other) in useful for other in before))
        if not self._may_share(object, filters):
            return
        if self._keeper:
            object.leave_out(_OWNER_PROGRAMS & set(self._keeper.chosen))
            object.reuse({name: self._keeper.required_map(name).fd for name in _OWNER_MAPS})
        if self._connections:
            object.leave_out(_DONE_BY_TRACE_TCP)
            object.reuse({name: self._connections.required_map(name).fd for name in (_OWNERS, _SHARES)})
            object.set_constant(_KEPT_ELSEWHERE, 1)

    def keep(self, object: BpfObject, filters: Mapping[str, object], who: object = None) -> None:
        """Makes later objects use this one's owners, if it keeps all of them, or the owners of connections. Call it
        when the programs are attached."""
        who, kept = who or object, _kept_by(object)
        others = [self._coming[other][0] for other in self._before(who)]
        self._coming.pop(who, None)
        if kept == _CONNECTIONS and not (self._keeper or self._connections or _BY_NAME in filters or _ALL in others):
            self._connections, self._filters = object, filters
        elif self._keeper is None and kept == _ALL and "socket_made" in object.chosen:
            if filters != self._filters:
                self._connections = None
            self._keeper, self._filters = object, filters

    def give_up(self, who: object) -> None:
        """Lets nobody wait for a gadget that is not loaded. Does nothing after keep()."""
        self._coming.pop(who, None)

    def _before(self, who: object) -> list[object]:
        """Returns those that came before and are not loaded yet."""
        return list(takewhile(lambda other: other is not who, self._coming))

    def stopped(self, object: BpfObject, filters: Mapping[str, object]) -> dict[str, str]:
        """Like BpfObject.stopped(), for the programs of another object that keep the owners for this one."""
        if not self._may_share(object, filters):
            return {}
        left_out = _OWNER_PROGRAMS.intersection(object.program_names).difference(object.chosen)
        found: dict[str, str] = {}
        if self._keeper:
            found |= {program: why for program, why in self._keeper.stopped().items() if program in left_out}
        if self._connections:
            stopped = self._connections.stopped()
            found |= {program: why for program, why in stopped.items() if program in _DETACHABLE_OF_TRACE_TCP}
        return found

    def _may_share(self, object: BpfObject, filters: Mapping[str, object]) -> bool:
        kept = _kept_by(object)
        if filters != self._filters or kept in (None, _CONNECTIONS):
            return False
        return self._keeper is not None or (self._connections is not None and kept == _ALL)


def _kept_by(object: BpfObject) -> str | None:
    """Returns which owners the object keeps; None when it does not say."""
    kept = object.map(_KEPT)
    return kept.text() if kept else None
