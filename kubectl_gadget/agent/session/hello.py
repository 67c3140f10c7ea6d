"""HELLO: what this agent is, and what its node has."""

import os
from typing import Any

from kubectl_gadget import __version__
from kubectl_gadget.agent.bpf import features
from kubectl_gadget.agent.host import node
from kubectl_gadget.agent.installed import installed_state
from kubectl_gadget.agent.session.contained import is_contained
from kubectl_gadget.agent.session.kinds import KINDS


def hello() -> dict[str, Any]:
    """The HELLO frame's object."""
    system = os.uname()
    return {
        "protocol": 1,
        "agent": __version__,
        "node": node.name(),
        "addresses": node.addresses(),
        "architecture": system.machine,
        "kernel": system.release,
        "kinds": KINDS,
        "boot_id": node.boot_id(),
        **node.clocks(),
        **features.describe(),
        "policies": installed_state.state(),
        "contained": is_contained(),
    }
