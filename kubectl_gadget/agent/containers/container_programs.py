"""Loads bpf/containers.bpf.c, whose programs follow cgroups (cgroup_watcher.py) and processes that leave their
container's cgroup (moved_processes.py).

The trap: the object fails to load if the kernel refuses one program, and sessions must also start where it refuses
those of moved processes. So the object is then opened again without them.
"""

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.bpf.object import BpfObject, own_object
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.errors import AgentError

OF_CGROUPS = ("made", "removed")
LOCATE = "locate"
OF_MOVES = ("attached", "forked", "freed", "running")
ADOPT = "adopt"
"""Run by the agent, as `locate` is."""
_STORAGE = "origins"
"""The map that kernels before 5.11 do not have."""
_RING_BYTES = 256 << 10
_VERDICTS = 65536
"""Entries of the map of verdicts."""


class ContainerPrograms:
    """The loaded object, with nothing attached, and the map of verdicts, which gadgets share. Raises AgentError."""

    def __init__(self) -> None:
        self.why_no_moves = ""
        """why the programs of moves are missing, when they are"""
        try:
            self.verdicts = HashMap("gadget_verdicts", _VERDICTS)
            self.object = self._load_most()
        except Failure as failure:
            raise refusal.refused("the program that follows containers", failure) from None

    def close(self) -> None:
        """Detaches and frees everything."""
        self.object.close()
        self.verdicts.close()

    def _load_most(self) -> BpfObject:
        try:
            return self._load((*OF_CGROUPS, LOCATE, *OF_MOVES, ADOPT))
        except Failure as failure:
            self.why_no_moves = refusal.reason(failure)[0]
        return self._load((*OF_CGROUPS, LOCATE))

    def _load(self, programs: tuple[str, ...]) -> BpfObject:
        def prepare(object: BpfObject) -> None:
            if missing := {*programs} - {*object.program_names}:
                what = f"containers.bpf.o was built for another version: it lacks {', '.join(sorted(missing))}"
                raise AgentError(what, "build the BPF objects again")
            object.reuse({"gadget_containers": self.verdicts.fd})
            object.required_map("gadget_events").resize(_RING_BYTES)
            object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
            if ADOPT not in programs:
                object.required_map(_STORAGE).leave_out()

        return own_object("containers", programs, prepare)
