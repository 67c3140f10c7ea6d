"""What is set in a gadget's object before it is loaded: RUN's `parameters`, the node's variables, and sizes of maps.

The trap: `globals`, the offsets of variables, come from the client, so an offset outside of .rodata is refused.
"""

from collections.abc import Mapping

from kubectl_gadget.agent.answers.network_refusals import MAP as REFUSALS
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.object import BpfObject, variable_bytes
from kubectl_gadget.agent.containers import descendants
from kubectl_gadget.agent.sources.events_output import ring_bytes
from kubectl_gadget.agent.sources.shared_maps import SharedMaps
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.client_messages import GadgetSpec

OWN_PROCESSES = ("gadget_node_agent", "gadget_node_client")
"""Variables with the PIDs of processes that are left out."""
_FREQUENCY = "gadget_frequency"
"""The variable with the sampling frequency of perf event programs."""
_MOST_OFTEN = 10_000
_UNIQUE, _SEEN = "gadget_unique", "gadget_seen"
"""The variable of --unique, and the map that programs use only with it (bpf/include/gadget/unique.h)."""
_FILTERS = "gadget_filter_"
"""Prefix of the filters that all gadgets have."""


class GadgetVariables:
    """The variables of one gadget. `spec` is its entry in RUN; `of_node` has values for gadget_node_… variables."""

    def __init__(self, spec: GadgetSpec, of_node: Mapping[str, int]) -> None:
        self.of_node = dict(of_node)
        self._name = spec.name
        self._places = spec.globals
        self._parameters = spec.parameters
        self._ring_bytes = spec.ring_bytes
        self._map_entries = spec.map_entries
        self.filters = {name: value for name, value in spec.parameters.items() if name.startswith(_FILTERS)}
        """which processes the gadget follows, by variable"""

    def frequency(self) -> int:
        """Returns the sampling frequency of perf event programs, per second. Raises AgentError."""
        frequency = self._parameters.get(_FREQUENCY, 1)
        if not isinstance(frequency, int) or not 1 <= frequency <= _MOST_OFTEN:
            what = f"gadget {self._name}: {frequency!r} samples per second are not possible"
            raise AgentError(what, f"1 to {_MOST_OFTEN}, such as 99")
        return frequency

    def set(self, object: BpfObject) -> None:
        """Sets all values. Raises AgentError when the object does not have a parameter, or a value does not fit."""
        node = self.of_node | {"gadget_ring_wake_bytes": ring_bytes(self._ring_bytes) // 4}
        values = {name: value for name, value in node.items() if name in self._places}
        if (chosen := self._parameters.get(descendants.PID)) and chosen in [values.get(name) for name in OWN_PROCESSES]:
            values |= dict.fromkeys(values.keys() & set(OWN_PROCESSES), 0)  # the user requested this process by its PID
        for name, value in {**self._parameters, **values}.items():
            if name not in self._places:
                raise AgentError(f"gadget {self._name} has no parameter {name}")
            place = self._places[name]
            try:
                object.set_variable(place.offset, variable_bytes(value, place.size))
            except (ValueError, OverflowError, UnicodeError) as error:
                raise AgentError(f"gadget {self._name}: parameter {name} cannot be {value!r}: {error}") from None

    def resize_maps(self, object: BpfObject) -> None:
        """Sets the sizes of hashes, of the ring, and of the per-CPU counters."""
        if self._map_entries:
            object.resize_hashes(self._map_entries)
        if (seen := object.map(_SEEN)) and not self._parameters.get(_UNIQUE):
            seen.resize(1)
        if events := object.map("gadget_events"):
            events.resize(ring_bytes(self._ring_bytes))
        if cpus := object.map("gadget_cpus"):
            cpus.resize(libbpf.load().call("libbpf_num_possible_cpus"))

    def share_maps(self, object: BpfObject, maps: SharedMaps) -> None:
        """Makes the object use the session's maps that it has. Raises AgentError."""
        object.reuse(maps.of_containers)
        if self._parameters.get(descendants.PARAMETER) and (chosen := object.map(descendants.MAP)):
            pid = self._parameters.get(descendants.PID, 0)
            if not isinstance(pid, int):
                raise AgentError(f"gadget {self._name}: parameter {descendants.PID} cannot be {pid!r}")
            chosen.reuse(maps.descendants(pid))
        if (refusals := object.map(REFUSALS)) and (fd := maps.refusals()) is not None:
            refusals.reuse(fd)
