"""A process and its descendants, for --pid with --descendants. Runs bpf/descendants.bpf.c.

The trap: children that are forked while the set is filled are added by the program at fork, which is therefore attached
first, and also before any gadget's own programs at fork, which look up the child.
"""

from contextlib import ExitStack

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, own_object
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.errors import AgentError

MAP = "gadget_descendants"
PARAMETER = "gadget_filter_descendants"
PID = "gadget_filter_pid"
_PROCESSES = 32768
_MOST_PASSES = 1000
"""Passes over all tasks. Each adds at least one generation; a pass that adds nothing is the last."""
_ZERO = bytes(4)


class Descendants:
    """The set of the process with this PID on the node and its descendants. Raises AgentError."""

    def __init__(self, pid: int, pid_level: int) -> None:
        def prepare(object: BpfObject) -> None:
            object.set_constant(PID, pid)
            object.set_constant("gadget_node_pid_level", pid_level)
            object.required_map(MAP).resize(_PROCESSES)

        with ExitStack() as undo:
            try:
                self._object = own_object("descendants", prepare=prepare, attached=("forks", "is_freed", "finds"))
                undo.callback(self._object.close)
                self._fill()
            except Failure as failure:
                raise refusal.refused("the program that follows descendants", failure) from None
            undo.pop_all()
        self.fd = self._object.required_map(MAP).fd

    def _fill(self) -> None:
        for _ in range(_MOST_PASSES):
            if not self._object.iterate("finds"):
                return
        raise AgentError(f"processes start faster than they can be listed, even after {_MOST_PASSES} attempts")

    def warning(self) -> str | None:
        """Returns a warning if there was no room for a process."""
        missing = int.from_bytes(self._object.required_map("not_added").get(_ZERO) or b"", "little")
        if not missing:
            return None
        return f"--descendants: more than {_PROCESSES:,} descendants live at once; further ones are not followed"

    def close(self) -> None:
        self._object.close()
