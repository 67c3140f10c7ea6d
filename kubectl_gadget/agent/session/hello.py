"""HELLO: what this agent is, and what its node supports."""

import os

from kubectl_gadget import __version__
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed import installed_state, owners
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.agent.session.start_sources import KINDS
from kubectl_gadget.wire.agent_messages import Hello


def hello() -> Hello:
    """Returns the content of the HELLO frame."""
    system = os.uname()
    return Hello(
        protocol=1,
        agent=__version__,
        node=this_node.name(),
        addresses=tuple(this_node.addresses()),
        architecture=system.machine,
        kernel=system.release,
        kinds=KINDS,
        boot_id=this_node.boot_id(),
        policies=installed_state.state(),
        pins=() if this_node.is_contained() else owners.of_others(),
        contained=this_node.is_contained(),
        **features.describe() | this_node.clocks(),
    )
