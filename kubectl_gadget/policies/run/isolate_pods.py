"""Cuts pods off the network during a run: the client's reaction to events of policies that keeps a pod alive.

The node's kernel drops everything that the pod's sockets send and receive, by the programs of network policies. They
know only the tables of this run, so no other pod is affected. A pod is identified by its UID, so a later pod of the
same name, such as the next one of a StatefulSet, has its network. The trap: a runtime without CRI reports no UID; only
then the name has to do.
"""

from collections.abc import Callable

from kubectl_gadget.policies.network.kernel_tables import HOST_ENTRY, PolicyTables, cut_off_entry, pod_entry
from kubectl_gadget.run.live_tables import Contents, LiveTables

Say = Callable[[str], None]


class PodIsolation:
    """`tables` belong to the gadget network_policy. `isolate` may be called from any thread."""

    def __init__(self, say: Say) -> None:
        self.tables = LiveTables()
        self._say = say
        self._policies: dict[str, int] = {}
        """the number of each violated policy, as a subject"""
        self._cut_off: dict[str, int] = {}
        """by the pod's UID; by NAMESPACE/NAME if it has none"""
        self._show()

    def isolate(self, namespace: str, pod: str, uid: str, policy: str) -> None:
        """Cuts a pod off, unless it already is."""
        name = f"{namespace}/{pod}"
        key = uid or name
        if key in self._cut_off:
            return
        self._cut_off[key] = self._policies.setdefault(policy, len(self._policies) + 1)
        self._show()
        later = "" if uid else " (by its name, since its UID is not known: later pods of this name are cut off too)"
        self._say(f"{name} is cut off from the network: policy {policy}{later}")

    def _show(self) -> None:
        made = PolicyTables()
        for policy, subject in self._policies.items():
            made.add_subject(subject, [policy], [policy])
        pods = {pod: cut_off_entry(subject) for pod, subject in self._cut_off.items()}
        contents = Contents({"subjects": made.subjects}, "pods", pods, other=pod_entry(0), host=HOST_ENTRY)
        self.tables.replace(lambda node, addresses: contents)
