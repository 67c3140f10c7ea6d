"""Which deployments a cluster has and had: who shares cluster-wide objects, and whose pinned policies are left.

The users' ClusterRole serves all deployments and names each in an annotation, with its image. It outlives a namespace
that was deleted without undeploy, whose policies stay in force on the nodes because they are pinned. A deployment is
identified by the UID of its namespace: one of the same name that was created later is another. The trap: the role may
also exist just for users of on-demand agents, so it belongs to a deployment only if an annotation says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubectl_gadget.agents import manifests
from kubectl_gadget.errors import ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import CLUSTER_ROLES, DAEMON_SETS, NAMESPACES
from kubectl_gadget.wire.agent_messages import OwnedPins

Owner = tuple[str, str]
"""Namespace and its UID, as in OwnedPins."""


@dataclass(frozen=True)
class Deployments:
    """All of a cluster. Both have namespaces as keys."""

    present: frozenset[str] = frozenset()
    """with resident agents"""
    images: Mapping[str, str] = field(default_factory=dict)
    """of those that the role names, which includes deleted ones"""
    pull_policy: str | None = None

    @property
    def left_behind(self) -> list[str]:
        """Namespaces whose agents were not removed by undeploy."""
        return sorted(self.images.keys() - self.present)


async def find(api: Api) -> Deployments:
    """Finds all deployments. Without the permissions for it, none. Raises ClusterError."""
    try:
        role = await api.get(CLUSTER_ROLES, manifests.USER) or {"metadata": {}}
        listing = await api.find(DAEMON_SETS, labels=manifests.RESIDENT_SELECTOR)
    except ForbiddenError:
        return Deployments()
    prefix, annotations = manifests.DEPLOYMENT_PREFIX, role["metadata"].get("annotations") or {}
    images = {key.removeprefix(prefix): value for key, value in annotations.items() if key.startswith(prefix)}
    present = frozenset(str(found["metadata"].get("namespace")) for found in listing.items)
    return Deployments(present, images, annotations.get(manifests.PULL_ANNOTATION) or None)


async def others(api: Api, options: AgentOptions) -> list[str]:
    """Returns the namespaces of other deployments, whose users need the role. Raises ClusterError."""
    found = await find(api)
    named = found.images.keys() - found.present - {options.namespace}
    existing = {name for name in named if await _uid(api, name)}
    return sorted((found.present | existing) - {options.namespace})


async def exist(api: Api, pins: Iterable[OwnedPins]) -> Mapping[Owner, bool | None]:
    """Whether the deployment that each of `pins` belongs to still exists; None: that cannot be found out."""
    held: dict[Owner, bool] = {}
    for one in pins:
        owner = (one.namespace, one.uid)
        held[owner] = one.held or held.get(owner, False)
    found: dict[Owner, bool | None] = {}
    for (namespace, uid), is_held in held.items():
        try:
            # An agent that runs proves that its deployment exists, even if it was restored with another UID.
            now = await _uid(api, namespace)
            found[namespace, uid] = is_held or (bool(now) and uid in ("", now))
        except ForbiddenError:
            found[namespace, uid] = is_held or None
    return found


def described(one: OwnedPins, exists: bool | None) -> str:
    """Names policies by their owner, as the subject of a sentence."""
    article, more = {
        True: ("the", ""),
        False: ("a", " that no longer exists"),
        None: ("a", " that may no longer exist"),
    }[exists]
    whose = f"policies of {article} deployment in namespace {one.namespace}{more}"
    return f"{whose} ({', '.join(one.policies)})" if one.policies else whose


def reports(node: str, pins: Iterable[OwnedPins], exist: Mapping[Owner, bool | None]) -> list[str]:
    """Returns what users should know about policies of others on a node."""
    found = []
    for one in pins:
        exists = exist[one.namespace, one.uid]
        remedy = "; kubectl gadget undeploy removes them" if exists is False and not one.held else ""
        found.append(f"{node}: {described(one, exists)} are in force{remedy}")
    return found


async def _uid(api: Api, namespace: str) -> str:
    """Returns the UID of a namespace; empty: there is none. Uses `list`, which roles permit for all namespaces."""
    listing = await api.find(NAMESPACES, fields=f"metadata.name={namespace}")
    return next((str(one["metadata"]["uid"]) for one in listing.items), "")
