"""Which deployments have policies pinned on this node: this agent's, and others.

The owner is in the pins' path, kubectl-gadget-policies/NAMESPACE/gNUMBER_UID in the bpf file system: so it is created
and removed together with the pins, and can be read without BPF capabilities. UID is the namespace's, so a namespace
that was created again is another owner. Agents cannot ask the API server whether an owner exists, so they list what
they find (HELLO), and clients decide. The trap: trying a lock takes it for a moment, which would fail an agent that
starts then. So whether a lock is held is read in /proc/locks.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.installed.pins import Pins, PinsTakenError, owner_of, read_state
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import OwnedPins, ReleasedPins
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


# The commands that list the policies pinned on this node, and take them out of force; both print JSON.
#
# `release own` is for the agent's own deployment: its agent puts nothing in force again until the pod is recreated.
# Other words are owners, NAMESPACE/UID. The trap: only the client can find out whether an owner still exists, so sets
# that a running agent holds are never removed as another owner's.


OWN = "own"
_SECONDS = 20.0
"""Time for the pod's process to release the policies; it ends when it finds the file."""
_SECONDS_OF_OTHERS = 3.0
"""Time for another command to release them: two clients may undeploy at once."""


def list_pins() -> int:
    """Prints the list of all owners."""
    sys.stdout.write(json.dumps([one.to_json() for one in found()]) + "\n")
    return 0


def release(words: Sequence[str]) -> int:
    """Takes policies out of force. Prints how many sets each owner had, and why sets of other owners are kept."""
    deadline = time.monotonic() + (_SECONDS if OWN in words else _SECONDS_OF_OTHERS)
    if OWN in words:
        with open(presence.RELEASE, "w"):
            pass
    removed: dict[str, int] = {}
    kept: dict[str, str] = {}
    for word in words:
        try:
            removed[word] = _release(word, deadline)
        except AgentError as error:
            kept[word] = str(error)
    sys.stdout.write(json.dumps(ReleasedPins(removed=removed, kept=kept).to_json()) + "\n")
    return 0


def _release(word: str, deadline: float) -> int:
    namespace, _, uid = word.partition("/")
    while True:
        try:
            if word == OWN:
                return remove(this_node.pod_namespace() or this_node.NO_NAMESPACE, None)
            return remove(namespace, uid)
        except PinsTakenError:
            if time.monotonic() >= deadline:
                raise AgentError("a running agent keeps them in force") from None
            time.sleep(0.1)
