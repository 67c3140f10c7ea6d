"""What a node's STATS say of what it sent and lost (docs/protocol.md). No I/O.

The trap: counts are since the connection began, so those of connections that were lost are added.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from kubectl_gadget.errors import FrameError

HOST = "the host"
Stats = Mapping[str, Any]
_DEEDS = {"denied": "overridden", "signalled": "signalled", "set": "set", "not set": "unset"}
"""What is told of the counts of a policy's hook."""
_REACTIONS = {"killed": "killed", "gone": "had ended already"}
"""The same of what an agent does by itself."""


def lost(connections: Iterable[Stats]) -> Counter[str]:
    """Counters by cause."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.get("gadgets", ()):
            for cause, per_cpu in gadget.get("lost", {}).items():
                total[cause] += sum(map(int, per_cpu.values()))
    return total


def losers(connections: Iterable[Stats]) -> Counter[str]:
    """Events that did not fit into the ring, by whose they were: NAMESPACE/POD/CONTAINER, a container's name, HOST."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.get("gadgets", ()):
            for loser in gadget.get("lost_by", ()):
                names = [str(loser[key]) for key in ("namespace", "pod", "container") if loser.get(key)]
                total["/".join(names) or HOST] += int(loser["lost"])
    return total


def held_up(connections: Iterable[Stats]) -> dict[str, Counter[str]]:
    """By a policy's hook, with the way to it: how many calls were denied, and how many processes were sent a signal."""
    total: dict[str, Counter[str]] = {}
    for stats in connections:
        for gadget in stats.get("gadgets", ()):
            for hook, counts in gadget.get("hooks", {}).items():
                found = {name: int(counts.get(count, 0)) for name, count in _DEEDS.items()}
                if any(found.values()):
                    total.setdefault(str(hook), Counter()).update(found)
    return total


def reactions(connections: Iterable[Stats]) -> Counter[str]:
    """What agents did about events from user space: processes that were killed, and those that had ended already."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.get("gadgets", ()):
            total.update({told: int(gadget.get(name, 0)) for name, told in _REACTIONS.items()})
    return total


def requests(connections: Iterable[Stats]) -> Counter[str]:
    """What agents asked for outside, as policies say: how much was answered, failed, and was left out."""
    total: Counter[str] = Counter()
    for stats in connections:
        for gadget in stats.get("gadgets", ()):
            total.update({name.replace("_", " "): int(count) for name, count in gadget.get("requests", {}).items()})
    return total


def events(connections: Iterable[Stats]) -> int:
    """How many events were sent."""
    return sum(int(gadget.get("events", 0)) for stats in connections for gadget in stats.get("gadgets", ()))


def checked(stats: Any) -> dict[str, Any]:
    """Raises FrameError when these are none that the functions above can read."""
    try:
        lost([stats]), losers([stats]), events([stats]), held_up([stats]), requests([stats]), reactions([stats])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"STATS are not as the protocol says: {error!r}") from None
    return dict(stats)
