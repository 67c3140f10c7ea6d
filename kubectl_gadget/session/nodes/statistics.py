"""Evaluates a node's STATS: what it sent and lost (docs/protocol.md). No I/O.

The trap: counts start with each connection, so those of lost connections are added.
"""

from collections import Counter
from collections.abc import Iterable

from kubectl_gadget.wire.agent_messages import RequestCounts, Stats

HOST = "the host"
_DEEDS = {"denied": "overridden", "signalled": "signalled", "set": "set", "not set": "unset"}
"""The counts of a policy's hook that are reported, with their names in the report."""


def lost(connections: Iterable[Stats]) -> Counter[str]:
    """Returns the counters by cause."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            for cause, per_cpu in gadget.lost.items():
                total[cause] += sum(per_cpu.values())
    return total


def losers(connections: Iterable[Stats]) -> Counter[str]:
    """Returns events that did not fit into the ring, by NAMESPACE/POD/CONTAINER, a container's name, or HOST."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            for loser in gadget.lost_by:
                names = filter(None, (loser.namespace, loser.pod, loser.container))
                total["/".join(names) or HOST] += loser.lost
    return total


def held_up(connections: Iterable[Stats]) -> dict[str, Counter[str]]:
    """Returns calls denied and processes signalled, by a policy's hook and the way to it."""
    total: dict[str, Counter[str]] = {}
    for stats in connections:
        for gadget in stats.gadgets:
            for hook, counts in gadget.hooks.items():
                found = {name: counts.get(count, 0) for name, count in _DEEDS.items()}
                if any(found.values()):
                    total.setdefault(hook, Counter()).update(found)
    return total


def reactions(connections: Iterable[Stats]) -> Counter[str]:
    """Returns how agents reacted to events in user space: processes they killed, and those that had already ended."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            total.update({"killed": gadget.killed, "had ended already": gadget.gone})
    return total


def requests(connections: Iterable[Stats]) -> Counter[str]:
    """Returns the requests that agents made for policies: how many were answered, failed, or were left out."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            counts = gadget.requests or RequestCounts()
            total.update({"answered": counts.answered, "failed": counts.failed, "left out": counts.left_out})
    return total


def events(connections: Iterable[Stats]) -> int:
    """Returns how many events were sent."""
    return sum(gadget.events for stats in connections for gadget in stats.gadgets)
