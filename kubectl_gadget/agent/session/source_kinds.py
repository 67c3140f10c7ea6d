"""The kinds of sources by name, and how to make each.

The trap: a kind's modules are imported only when RUN requests it, to save memory.
"""

from importlib import import_module

from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.source import Source
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.client_messages import AnyGadget

_CLASSES = {
    "stream": ("sources.stream", "StreamSource"),
    "snapshot": ("sources.snapshot", "SnapshotSource"),
    "top": ("sources.top", "TopSource"),
    "recorder": ("sources.flight_recordings", "RecorderSource"),
    "policy": ("policies.policy_source", "PolicySource"),
    "installed": ("installed.installed_source", "InstalledSource"),
}
KINDS = tuple(_CLASSES)
"""The kinds that HELLO offers."""


def make_source(spec: AnyGadget, elf: bytes, context: NodeContext) -> Source:
    """Makes and attaches the source for one of RUN's `gadgets`. Raises AgentError."""
    if spec.kind not in _CLASSES:
        raise AgentError(
            f"gadget {spec.name}: this agent knows no gadgets of kind {spec.kind!r}",
            "kubectl gadget deploy, which updates the agents",
        )
    module, name = _CLASSES[spec.kind]
    source: Source = getattr(import_module(f"kubectl_gadget.agent.{module}"), name)(spec, elf, context)
    return source
