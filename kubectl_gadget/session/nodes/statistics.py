"""What a node's STATS say of what it sent and lost (docs/protocol.md). No I/O.

The trap: counts are since the connection began, so those of connections that were lost are added.
"""

from collections import Counter
from collections.abc import Iterable

from kubectl_gadget.wire.agent_messages import RequestCounts, Stats

HOST = "the host"
_DEEDS = {"denied": "overridden", "signalled": "signalled", "set": "set", "not set": "unset"}
"""What is reported of the counts of a policy's hook."""


def lost(connections: Iterable[Stats]) -> Counter[str]:
    """Counters by cause."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            for cause, per_cpu in gadget.lost.items():
                total[cause] += sum(per_cpu.values())
    return total


def losers(connections: Iterable[Stats]) -> Counter[str]:
    """Events that did not fit into the ring, by whose they were: NAMESPACE/POD/CONTAINER, a container's name, HOST."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            for loser in gadget.lost_by:
                names = filter(None, (loser.namespace, loser.pod, loser.container))
                total["/".join(names) or HOST] += loser.lost
    return total


def held_up(connections: Iterable[Stats]) -> dict[str, Counter[str]]:
    """By a policy's hook, with the way to it: how many calls were denied, and how many processes were sent a signal."""
    total: dict[str, Counter[str]] = {}
    for stats in connections:
        for gadget in stats.gadgets:
            for hook, counts in gadget.hooks.items():
                found = {name: counts.get(count, 0) for name, count in _DEEDS.items()}
                if any(found.values()):
                    total.setdefault(hook, Counter()).update(found)
    return total


def reactions(connections: Iterable[Stats]) -> Counter[str]:
    """What agents did about events from user space: processes that were killed, and those that had ended already."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            total.update({"killed": gadget.killed, "had ended already": gadget.gone})
    return total


def requests(connections: Iterable[Stats]) -> Counter[str]:
    """What agents asked for outside, as policies say: how much was answered, failed, and was left out."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.gadgets:
            counts = gadget.requests or RequestCounts()
            total.update({"answered": counts.answered, "failed": counts.failed, "left out": counts.left_out})
    return total


def events(connections: Iterable[Stats]) -> int:
    """How many events were sent."""
    return sum(gadget.events for stats in connections for gadget in stats.gadgets)
