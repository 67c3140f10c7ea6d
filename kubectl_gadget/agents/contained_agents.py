"""Contained agents in a cluster: the admission policy that confines observers, and their rights, in a safe order.

With the policy in force, the right to exec in the agents' pods starts one fixed command. Without it, the same right
means root on the nodes. So observers get it only after the API server was seen to refuse another command, and lose it
before the policy is deleted. The policy and the roles are for one namespace with contained agents; deployments in
others leave them alone. The trap: an applied policy is in force only some moments later, when the API servers have read
it.
"""

import asyncio
from collections.abc import Callable

from kubectl_gadget.agents import manifests
from kubectl_gadget.errors import DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.exec import open_exec
from kubectl_gadget.kube.failure import StatusError
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    Object,
    Resource,
)

Say = Callable[[str], None]
RIGHTS = frozenset(resource.kind for resource in (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS))
"""Kinds of objects that grant observers their rights."""
_REFUSED = (*manifests.AGENT_COMMAND, "probe")
"""A command that the policy refuses, and that is harmless if it is not refused."""
_IN_FORCE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_IN_A_ROW = 5
"""Consecutive refusals to wait for: there may be several API servers, and each reads the policy on its own."""


async def check_before(api: Api, options: AgentOptions) -> None:
    """Checks whether contained agents can be deployed here. Raises DeployError."""
    try:
        await api.find(ADMISSION_POLICIES)
    except StatusError as error:
        if error.code != 404:
            raise
        what = "this API server has no ValidatingAdmissionPolicy (Kubernetes 1.30), which contained agents depend on"
        raise DeployError(what, "kubectl gadget deploy, without --contained") from None
    if (other := await _elsewhere(api, options)) is not None:
        raise DeployError(
            f"namespace {other} has contained agents, and only one namespace of a cluster can have them",
            f"kubectl gadget undeploy --agent-namespace {other}",
        )
    if await api.get(CONFIG_MAPS, manifests.POLICIES, options.namespace) is not None:
        raise DeployError(
            "policies are installed, but contained agents run none", "kubectl gadget policy uninstall --all"
        )


async def confirm(api: Api, options: AgentOptions, say: Say) -> None:
    """Waits until the API server refuses a command that observers must not run. Raises DeployError."""
    pods = (await api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR)).items
    if not pods:
        raise DeployError("no agent runs, so it cannot be seen whether the policy for observers is in force")
    name, in_a_row = pods[0]["metadata"]["name"], 0
    try:
        async with asyncio.timeout(_IN_FORCE_SECONDS):
            while in_a_row < _IN_A_ROW:
                in_a_row = in_a_row + 1 if await _refuses(api, options.namespace, name) else 0
                await asyncio.sleep(_POLL_SECONDS if not in_a_row else 0)
    except TimeoutError:
        raise DeployError(
            f"the policy {manifests.OBSERVER} does not confine exec in namespace {options.namespace}: other commands "
            f"are still allowed after {_IN_FORCE_SECONDS:.0f} s",
            f"kubectl get validatingadmissionpolicy {manifests.OBSERVER} -o yaml",
        ) from None
    say(f"verified: in namespace/{options.namespace} exec starts only contained sessions")


async def _refuses(api: Api, namespace: str, pod: str) -> bool:
    try:
        stream = await open_exec(api, namespace, pod, manifests.CONTAINER, _REFUSED)
    except ForbiddenError:
        raise
    except StatusError as error:
        if error.code in (403, 422) and manifests.OBSERVER in str(error):
            return True
        raise DeployError(f"it cannot be seen whether the policy for observers is in force: {error}") from None
    await stream.close()
    return False


async def leave(api: Api, options: AgentOptions, say: Say) -> None:
    """Removes observers' rights, then the policy. Called before agents that are not contained are deployed.

    Users who may not even read the policy do not change it, and it stays in force.
    """
    try:
        policy = await api.get(ADMISSION_POLICIES, manifests.OBSERVER)
        if policy is None or _confined(policy) != options.namespace:
            return
    except ForbiddenError:
        return
    await remove_rights(api, options, say)
    await remove_policy(api, options, say)


def _confined(policy: Object) -> str:
    """Returns the namespace that the policy is for."""
    return str(policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"][manifests.NAMESPACE_NAME_LABEL])


async def _elsewhere(api: Api, options: AgentOptions) -> str | None:
    """Returns the other namespace whose observers the policy confines; None: there is none."""
    policy = await api.get(ADMISSION_POLICIES, manifests.OBSERVER)
    if policy is None or not is_ours(policy) or _confined(policy) == options.namespace:
        return None
    return _confined(policy)


async def remove_rights(api: Api, options: AgentOptions, say: Say) -> bool:
    """Removes observers' rights. Returns whether there were any."""
    removed = False
    elsewhere = await _elsewhere(api, options)
    for resource, name, namespace in (
        (ROLE_BINDINGS, manifests.OBSERVER, options.namespace),
        (ROLES, manifests.OBSERVER, options.namespace),
        (CLUSTER_ROLE_BINDINGS, manifests.OBSERVER, None),
        (CLUSTER_ROLES, manifests.OBSERVER, None),
        (CLUSTER_ROLES, manifests.NAMESPACE_OBSERVER, None),
    ):
        if namespace is not None or not elsewhere:
            removed |= await delete_ours(api, resource, name, namespace, say)
    return removed


async def remove_policy(api: Api, options: AgentOptions, say: Say) -> bool:
    """Deletes the policy. Call it only when no role grants the rights that it limits. Returns whether there was one."""
    removed = False
    if await _elsewhere(api, options):
        return removed
    for resource in (ADMISSION_POLICY_BINDINGS, ADMISSION_POLICIES):
        removed |= await delete_ours(api, resource, manifests.OBSERVER, None, say)
    return removed


def is_ours(found: Object) -> bool:
    """Whether this project created the object."""
    return (found["metadata"].get("labels") or {}).get(manifests.NAME_LABEL) == manifests.NAME


async def delete_ours(api: Api, resource: Resource, name: str, namespace: str | None, say: Say) -> bool:
    """Deletes one object if it exists and is ours. Returns whether it was deleted."""
    found = await api.get(resource, name, namespace)
    if found is None or not is_ours(found) or not await api.delete(resource, name, namespace):
        return False
    say(f"{resource.kind.lower()}/{name} deleted")
    return True
