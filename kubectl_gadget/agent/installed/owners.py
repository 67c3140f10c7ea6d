"""Which deployments have policies pinned on this node: this agent's, and others.

The owner is in the pins' path, kubectl-gadget-policies/NAMESPACE/gNUMBER_UID in the bpf file system: so it is created
and removed together with the pins, and can be read without BPF capabilities. UID is the namespace's, so a namespace
that was created again is another owner. Agents cannot ask the API server whether an owner exists, so they list what
they find (HELLO), and clients decide. The trap: trying a lock takes it for a moment, which would fail an agent that
starts then. So whether a lock is held is read in /proc/locks.
"""

import os
from collections.abc import Callable, Iterator

from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.installed.pins import Pins, owner_of, read_state
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import OwnedPins
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.policy_messages import InstalledPolicy


def of_others() -> tuple[OwnedPins, ...]:
    """As found(), without the sets that an agent of this pod's namespace keeps in force."""
    own = this_node.pod_namespace()
    return found(lambda namespace, is_held: namespace != own or not is_held)


def found(is_listed: Callable[[str, bool], bool] = lambda _namespace, _is_held: True) -> tuple[OwnedPins, ...]:
    """Returns the owners of what is pinned on this node. `is_listed` selects by namespace, and by whether an agent
    holds the sets."""
    sets: dict[tuple[str, str], list[str]] = {}
    for namespace, folder in _folders():
        for name in procfs.listed(folder):
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
    """Removes the sets of one owner; with `uid` None, all of the namespace. Returns how many there were. Raises
    PinsTakenError when an agent holds them, and AgentError."""
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
    """Yields each namespace with pins, and its folder."""
    for namespace in procfs.listed(this_node.all_pins()):
        yield namespace, f"{this_node.all_pins()}/{namespace}"


def _policies(folder: str) -> list[str]:
    try:
        policies = parse(read_state(folder)).get("policies")
        return [InstalledPolicy.from_json(one).title for one in policies or ()]
    except (AgentError, FrameError, TypeError):
        return []  # of a version that describes them otherwise


def _is_held(folder: str) -> bool:
    try:
        status = os.stat(folder)
        with open("/proc/locks") as file:
            locks = [line.split() for line in file]
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(words[1] == "FLOCK" and place in words for words in locks)
