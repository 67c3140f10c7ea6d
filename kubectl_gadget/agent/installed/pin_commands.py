"""The commands that list the policies pinned on this node, and take them out of force; both print JSON.

`release own` is for the agent's own deployment: its agent puts nothing in force again until the pod is recreated. Other
words are owners, NAMESPACE/UID. The trap: only the client can find out whether an owner still exists, so sets that a
running agent holds are never removed as another owner's.
"""

import json
import sys
import time
from collections.abc import Sequence

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed import owners
from kubectl_gadget.agent.installed.pins import PinsTakenError
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import ReleasedPins

OWN = "own"
_SECONDS = 20.0
"""Time for the pod's process to release the policies; it ends when it finds the file."""
_SECONDS_OF_OTHERS = 3.0
"""Time for another command to release them: two clients may undeploy at once."""


def list_pins() -> int:
    """Prints the list of all owners."""
    sys.stdout.write(json.dumps([one.to_json() for one in owners.found()]) + "\n")
    return 0


def run(words: Sequence[str]) -> int:
    """Takes policies out of force. Prints how many sets each owner had, and why sets of other owners are kept."""
    deadline = time.monotonic() + (_SECONDS if OWN in words else _SECONDS_OF_OTHERS)
    if OWN in words:
        with open(presence.RELEASE, "w"):
            pass
    removed: dict[str, int] = {}
    kept: dict[str, str] = {}
    for word in words:
        try:
            removed[word] = _remove(word, deadline)
        except AgentError as error:
            kept[word] = str(error)
    sys.stdout.write(json.dumps(ReleasedPins(removed=removed, kept=kept).to_json()) + "\n")
    return 0


def _remove(word: str, deadline: float) -> int:
    namespace, _, uid = word.partition("/")
    while True:
        try:
            if word == OWN:
                return owners.remove(this_node.pod_namespace() or this_node.NO_NAMESPACE, None)
            return owners.remove(namespace, uid)
        except PinsTakenError:
            if time.monotonic() >= deadline:
                raise AgentError("a running agent keeps them in force") from None
            time.sleep(0.1)
