"""Whose policies are pinned on this node: those of this agent's deployment, and of others.

The record of the owner is in the names, kubectl-gadget-policies/NAMESPACE/gNUMBER_UID in the bpf file system: it is
made and removed together with the pins, and reading it takes no right to use BPF. UID is the namespace's, so a
namespace that was created again is another owner. Agents cannot ask the API server whether an owner exists, so they
list what they find (HELLO), and clients decide. The trap: an agent that starts must not find its lock taken by one that
only looks, so whether a lock is held is read in /proc/locks.
"""

import os
from collections.abc import Callable, Iterator, Sequence

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed.pins import Pins, owner_of, read_state
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import OwnedPins
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.policy_messages import InstalledPolicy


def found() -> tuple[OwnedPins, ...]:
    """Lists what is pinned on this node, by owner."""
    return _listing(lambda _namespace, _held: True)


def of_others() -> tuple[OwnedPins, ...]:
    """The same without what an agent of this pod's namespace has in force."""
    own = this_node.pod_namespace()
    return _listing(lambda namespace, held: namespace != own or not held)


def _listing(is_listed: Callable[[str, bool], bool]) -> tuple[OwnedPins, ...]:
    sets: dict[tuple[str, str], list[str]] = {}
    for namespace, folder in _folders():
        for name in _listed(folder):
            sets.setdefault((namespace, owner_of(name)), []).append(f"{folder}/{name}")
    return tuple(
        OwnedPins(
            namespace=namespace,
            uid=uid,
            sets=len(folders),
            held=held,
            policies=tuple(sorted({name for folder in folders for name in _policies(folder)})),
        )
        for (namespace, uid), folders in sorted(sets.items())
        if is_listed(namespace, held := _is_held(os.path.dirname(folders[0])))
    )


def remove(namespace: str, uid: str | None) -> int:
    """Removes the sets of one owner, or with None all of a namespace. Returns how many there were. Raises
    PinsTakenError when an agent has them, and AgentError."""
    folder = dict(_folders()).get(namespace)
    if folder is None:
        return 0
    pins = Pins(folder)
    try:
        return pins.remove_all(uid)
    except OSError as error:
        raise AgentError(f"{folder} cannot be removed: {error.strerror}") from None
    finally:
        pins.close()


def _folders() -> Iterator[tuple[str, str]]:
    """Folders with sets, by namespace."""
    for namespace in _listed(this_node.all_pins()):
        yield namespace, f"{this_node.all_pins()}/{namespace}"


def _listed(folder: str) -> Sequence[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return ()


def _policies(folder: str) -> list[str]:
    try:
        policies = parse(read_state(folder)).get("policies")
        return [InstalledPolicy.from_json(one).title for one in policies or ()]
    except (AgentError, FrameError, TypeError):
        return []  # of a version that describes them otherwise


def _is_held(folder: str) -> bool:
    try:
        there = os.stat(folder)
        with open("/proc/locks") as file:
            locks = [line.split() for line in file]
    except OSError:
        return False
    place = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}"
    return any(words[1] == "FLOCK" and place in words for words in locks)
