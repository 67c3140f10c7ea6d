"""What the client of `enforce` does to a pod when one of its policies would deny something: delete it, or isolate it.

The trap: events are shown in a thread of their own, so what reacts to them must accept calls from any thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kubectl_gadget import gadgets
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.run.services import Service
from kubectl_gadget.wire.policy_events.event import PolicyEvent

if TYPE_CHECKING:  # modules that need numpy
    from kubectl_gadget.observe.story import StoryEvent
    from kubectl_gadget.rows.container_lookup import Container

Say = Callable[[str], None]
_ENFORCING = ("Sigkill", "Signal", "Override")


@dataclass(frozen=True)
class Reaction:
    """What reacts to the events of a story."""

    on_event: "Callable[[StoryEvent], None] | None" = None
    """called for each event, also for those that are not shown"""
    silent: GadgetRun | None = None
    """a gadget that the reaction needs; its rows are not part of the story"""
    services: tuple[Service, ...] = ()
    """as in RunOptions"""


NO_REACTION = Reaction()


def deleting_pods(namespace: str | None, say: Say) -> Reaction:
    """Deletes the pods of `namespace`, or of all namespaces, that do what a policy denies."""
    from kubectl_gadget.policies.run.delete_pods import PodDeleter

    deleter = PodDeleter(namespace, say)

    def delete(container: "Container", policy: str) -> None:
        deleter.delete(container.namespace, container.pod, container.pod_uid, f"policy {policy}")

    return Reaction(partial(_react, delete), services=(deleter.serve,))


def isolating_pods(say: Say) -> Reaction:
    """Cuts the pods off the network that do what a policy denies."""
    from kubectl_gadget.policies.run.isolate_pods import PodIsolation

    isolation = PodIsolation(say)

    def isolate(container: "Container", policy: str) -> None:
        isolation.isolate(container.namespace, container.pod, container.pod_uid, policy)

    gadget = GadgetRun(gadgets.load_gadget("network_policy"), tables=isolation.tables)
    return Reaction(partial(_react, isolate), gadget)


def _react(act: "Callable[[Container, str], None]", entry: "StoryEvent") -> None:
    event, container = entry.happening, entry.container
    if isinstance(event, PolicyEvent) and event.action in _ENFORCING and container.pod:
        act(container, event.policy)
