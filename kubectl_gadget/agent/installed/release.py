"""The commands that list what is pinned on this node, and take it out of force; both print JSON.

`release` alone is for the agent's own deployment: its agent puts nothing in force again until the pod is recreated.
With owners it removes what belongs to them, unless an agent that runs has it. The trap: only the client can find out
whether an owner still exists.
"""

import json
import os
import sys
import time
from collections.abc import Sequence

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed import owners
from kubectl_gadget.agent.installed.pins import Pins
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError

_SECONDS = 20.0


def list_pins() -> int:
    """Prints the list of all owners."""
    sys.stdout.write(json.dumps([one.to_json() for one in owners.found()]) + "\n")
    return 0


def run(of: Sequence[str]) -> int:
    """Takes the policies of these owners (NAMESPACE/UID) out of force, or without any those of this deployment."""
    return _of_others(of) if of else _own()


def _of_others(of: Sequence[str]) -> int:
    removed, kept = {}, {}
    for word in of:
        namespace, _, uid = word.partition("/")
        try:
            removed[word] = owners.remove(namespace, uid)
        except AgentError as error:
            kept[word] = str(error)
    sys.stdout.write(json.dumps({"removed": removed, "kept": kept}) + "\n")
    return 0


def _own() -> int:
    folder = this_node.pins()
    with open(presence.RELEASE, "w"):
        pass
    deadline = time.monotonic() + _SECONDS
    while os.path.isdir(folder):
        try:
            return _removed(Pins(folder).remove_all())
        except AgentError as error:
            if time.monotonic() > deadline:
                sys.stderr.write(f"{error}\n")
                return 1
            time.sleep(0.1)
        except OSError as error:
            sys.stderr.write(f"{folder} cannot be removed: {error.strerror}\n")
            return 1
    return _removed(0)


def _removed(sets: int) -> int:
    sys.stdout.write(json.dumps({"removed": sets}) + "\n")
    return 0
