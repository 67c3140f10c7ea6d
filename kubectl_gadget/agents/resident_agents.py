"""The resident agents: deploys them on every node, and removes everything again.

The API server accepts a DaemonSet whose pods Pod Security then refuses one by one, which only events show. A namespace
that existed before is not ours, so it is neither labelled nor deleted. Observers' right to exec may exist only while
the policy that confines it is in force, so it is created last and deleted first.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from kubectl_gadget.agents import deployments, manifests, node_status
from kubectl_gadget.agents.deployments import take_out_of_force
from kubectl_gadget.agents.node_status import AgentUse
from kubectl_gadget.agents.pod_readiness import is_running, recent_warnings, state, trouble
from kubectl_gadget.agents.shared_namespace import is_ending, make_permanent, until_gone
from kubectl_gadget.errors import DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.exec import open_exec
from kubectl_gadget.kube.failure import Access, StatusError
from kubectl_gadget.kube.requests import FIELD_MANAGER, Api
from kubectl_gadget.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    BY_KIND,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DAEMON_SETS,
    JOBS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    Object,
    Resource,
)
from kubectl_gadget.wording import count
from kubectl_gadget.yaml_files import safe_dumper

Say = Callable[[str], None]
_POLL_SECONDS = 0.5
_REMOVAL_SECONDS = 60.0
_TRIES = 5


def render(options: AgentOptions, node_selector: Mapping[str, str] | None = None, contents: Sequence[str] = ()) -> str:
    """Returns what `deploy` would apply, as YAML for kubectl apply -f -."""
    import yaml

    objects = manifests.deployment(options, node_selector, contents)
    text: str = yaml.dump_all(objects, Dumper=safe_dumper(), sort_keys=False, explicit_start=True)
    return text


async def deploy(
    api: Api,
    options: AgentOptions,
    say: Say,
    node_selector: Mapping[str, str] | None = None,
    wait: bool = True,
    contents: Sequence[str] = (),
) -> None:
    """Applies everything, then waits until an agent runs on each node. `contents` as in manifests.deployment().

    Raises ForbiddenError before anything is changed, DeployError when an agent does not start.
    """
    await api.require(
        _deploy_accesses(options), "deploy the agents", "ask for the role in manifests/rbac-deployer.yaml"
    )
    namespace = await api.get(NAMESPACES, options.namespace)
    if namespace is not None and is_ending(namespace):
        await _until_gone(api, options.namespace, say)
        namespace = None
    if options.contained:
        await check_before(api, options)
    else:
        await leave(api, options, say)
    foreign = namespace is not None and not is_ours(namespace)
    objects = manifests.deployment(options, node_selector, contents)
    rights = [found for found in objects if found["kind"] in RIGHTS] if options.contained else []
    for found in objects:
        if found["kind"] == "Namespace" and foreign:
            say(f"namespace/{options.namespace} exists and is left as it is")
        elif found not in rights:
            # So that it does not remove what other deployments have written into an object that serves all of them.
            manager = f"{FIELD_MANAGER}/{options.namespace}" if found["kind"] == CLUSTER_ROLES.kind else FIELD_MANAGER
            await _apply(api, found, say, manager)
    if options.contained:
        await _contain(api, options, rights, say)
    elif wait:
        try:
            await _wait(api, options, say)
        except DeployError:
            say("what was applied is kept; kubectl gadget undeploy removes it")
            raise


async def _contain(api: Api, options: AgentOptions, rights: Sequence[Object], say: Say) -> None:
    """Grants observers their rights, once the policy was seen to confine them."""
    try:
        await _wait(api, options, say)
        await confirm(api, options, say)
    except DeployError:
        say("observers get no rights; what was applied is kept, and kubectl gadget undeploy removes it")
        raise
    for found in rights:
        await _apply(api, found, say)


async def _apply(api: Api, found: Object, say: Say, manager: str = FIELD_MANAGER) -> None:
    applied = await api.apply(BY_KIND[found["kind"]], found, found["metadata"].get("namespace"), manager)
    if found["kind"] == NAMESPACES.kind and not await _stays(api, applied):
        await _until_gone(api, applied["metadata"]["name"], say)
        await api.apply(NAMESPACES, found)
    say(f"{found['kind'].lower()}/{applied['metadata']['name']} applied")


async def _stays(api: Api, namespace: Object) -> bool:
    """Makes a namespace of runs permanent, even before there are pods in it. Returns False if it is being deleted."""
    if manifests.is_on_demand(namespace):
        namespace = await make_permanent(api, namespace)
    return not is_ending(namespace)


async def undeploy(
    api: Api,
    options: AgentOptions,
    say: Say,
    all_nodes: bool = False,
    confirm: Callable[[Sequence[AgentUse]], object] = lambda _: None,
) -> None:
    """Removes everything that `deploy` or a run created, including the namespace if it is ours, and pinned policies
    without a deployment, with `all_nodes` also where no agent is. If runs use the agents, calls `confirm` with them,
    which raises an error to keep everything. Runs that begin later go on. Raises ClusterError."""
    name = options.namespace
    await api.require(_undeploy_accesses(options), "remove the agents", "ask for the role in rbac-deployer.yaml")
    runs = await node_status.on_demand(api, options)
    if uses := runs + await _in_residents(api, options):
        confirm(uses)
    ended = frozenset(use.run for use in runs)
    removed = await remove_rights(api, options, say)
    await take_out_of_force(api, options, say, all_nodes)
    removed |= await delete_ours(api, CONFIG_MAPS, manifests.POLICIES, name, say)
    removed |= await _leave_role(api, options, say)
    for resource in (ROLE_BINDINGS, ROLES):
        removed |= await delete_ours(api, resource, manifests.USER, name, say)
    removed |= await delete_ours(api, DAEMON_SETS, manifests.NAME, name, say)
    for found in manifests.agent_config_maps():
        removed |= await delete_ours(api, CONFIG_MAPS, found["metadata"]["name"], name, say)
    for namespace in (name, manifests.second_namespace(name)):
        removed |= await _delete_namespace(api, namespace, ended, say, is_second=namespace != name)
    removed |= await remove_policy(api, options, say)
    if not removed:
        say("nothing was deployed")


async def _in_residents(api: Api, options: AgentOptions) -> list[AgentUse]:
    """Returns the runs that use resident agents; none without the right to ask these."""
    with suppress(ForbiddenError):
        return node_status.in_residents(await node_status.status(api, options))
    return []


async def _delete_namespace(api: Api, name: str, ended: frozenset[str], say: Say, is_second: bool) -> bool:
    """Deletes the namespace if it is ours, with the runs in `ended`. Other runs in it go on, and the last one deletes
    it. Of the second namespace, only one that a run created. Returns whether anything was deleted."""
    removed = False
    for _ in range(_TRIES):
        try:
            namespace = await api.get(NAMESPACES, name)
        except ForbiddenError:
            if is_second:  # those who may not see it have not created it
                return removed
            raise
        if namespace is None or (is_second and not manifests.is_on_demand(namespace)):
            return removed
        runs = (await api.find(JOBS, name, labels=manifests.RUN_LABEL)).items
        others = [job for job in runs if job["metadata"]["labels"][manifests.RUN_LABEL] not in ended]
        for job in runs:
            if job not in others:
                removed |= await delete_ours(api, JOBS, job["metadata"]["name"], name, say)
        pods = [
            pod["metadata"]["name"]
            for pod in (await api.find(PODS, name)).items
            if (pod["metadata"].get("labels") or {}).get(manifests.NAME_LABEL) != manifests.NAME
        ]
        if not is_ours(namespace) or pods or others:
            why = f"it holds other pods ({', '.join(pods[:5])})" if pods else "it was not created by kubectl gadget"
            if is_ours(namespace) and others:
                why = f"in use by {count(len(others), 'run')}; the last one deletes it"
                mark = {"annotations": {manifests.ON_DEMAND_ANNOTATION: "true"}}
                await api.patch(NAMESPACES, name, {"metadata": mark})
            say(f"namespace/{name} is kept: {why}")
            return removed
        metadata = namespace["metadata"]
        # Only as it was found: a run that begins changes it.
        if await api.delete(NAMESPACES, name, uid=metadata["uid"], version=metadata["resourceVersion"]):
            await _until_gone(api, name, say)
            say(f"namespace/{name} deleted")
            return True
    say(f"namespace/{name} is kept: other clients keep changing it")
    return removed


async def _leave_role(api: Api, options: AgentOptions, say: Say) -> bool:
    """Deletes the users' ClusterRole, or only its records of this deployment and of deleted ones if there are others.
    Returns whether it did either."""
    others = await deployments.others(api, options)
    if not others:
        removed = [
            await delete_ours(api, resource, manifests.USER, None, say)
            for resource in (CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES)
        ]
        return any(removed)
    role = await api.get(CLUSTER_ROLES, manifests.USER) or {"metadata": {}}
    kept = {manifests.DEPLOYMENT_PREFIX + name for name in others}
    named = {key for key in role["metadata"].get("annotations") or {} if key.startswith(manifests.DEPLOYMENT_PREFIX)}
    if not named - kept:
        return False
    # Also those whose namespace was deleted: what they left was looked for, on every node.
    await api.patch(CLUSTER_ROLES, manifests.USER, {"metadata": {"annotations": dict.fromkeys(named - kept)}})
    say(f"clusterrole/{manifests.USER} is kept: namespace {', '.join(others)} has a deployment, too")
    return True


async def _until_gone(api: Api, namespace: str, say: Say) -> None:
    say(f"waiting until namespace/{namespace} is gone")
    await until_gone(api, namespace, _REMOVAL_SECONDS)


async def _wait(api: Api, options: AgentOptions, say: Say) -> None:
    """Waits until every pod of the DaemonSet runs. Fails as soon as none of the missing pods can start any more."""
    shown = ""
    pods: list[Object] = []
    desired = 0
    try:
        async with asyncio.timeout(options.start_timeout):
            while True:
                daemon_set, pods, desired = await _look(api, options)
                running = sum(map(is_running, pods))
                text = f"agents running: {running}/{desired} nodes"
                if daemon_set is not None and text != shown:
                    shown = text
                    say(text)
                if daemon_set is not None:
                    if running >= desired:
                        return
                    await _fail_early(api, options, pods, desired)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        late = [f"{pod['spec'].get('nodeName', '?')}: {state(pod)}" for pod in pods if not is_running(pod)]
        missing, seconds = desired - sum(map(is_running, pods)), options.start_timeout
        raise DeployError(
            f"{missing} of {desired} agents are not running after {seconds:.0f} s"
            + "".join(f"\n  {line}" for line in late[:20]),
            f"kubectl -n {options.namespace} describe pods",
        ) from None


async def _look(api: Api, options: AgentOptions) -> tuple[Object | None, list[Object], int]:
    """Returns the DaemonSet (None until its controller has seen it), its newest pods, and how many there should be."""
    daemon_set = await api.get(DAEMON_SETS, manifests.NAME, options.namespace)
    status = (daemon_set or {}).get("status", {})
    if daemon_set is None or status.get("observedGeneration", 0) < daemon_set["metadata"].get("generation", 0):
        return None, [], 0
    listing = await api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR)
    generation = str(daemon_set["metadata"].get("generation"))
    pods = [
        pod
        for pod in listing.items
        if "deletionTimestamp" not in pod["metadata"]
        and (pod["metadata"].get("labels") or {}).get("pod-template-generation", generation) == generation
    ]
    return daemon_set, pods, int(status.get("desiredNumberScheduled", 0))


async def _fail_early(api: Api, options: AgentOptions, pods: list[Object], desired: int) -> None:
    errors = [error for pod in pods if not is_running(pod) and (error := trouble(pod)) is not None]
    running = sum(map(is_running, pods))
    if errors and len(errors) + running >= desired:
        raise DeployError("\n".join(str(error) for error in errors[:10]), errors[0].remedy)
    if pods:
        return
    refused = [line for line in await recent_warnings(api, options.namespace, manifests.NAME) if "FailedCreate" in line]
    if refused:
        remedy = None
        if "PodSecurity" in refused[-1]:
            label = "pod-security.kubernetes.io/enforce=privileged"
            remedy = f"kubectl label --overwrite namespace {options.namespace} {label}"
        raise DeployError(f"the agents' pods are refused: {refused[-1]}", remedy)


def _deploy_accesses(options: AgentOptions) -> list[Access]:
    wanted = [Access("list", PODS.plural, options.namespace)]
    if options.contained:
        wanted.append(Access("create", PODS.plural, options.namespace, "exec"))
    return [*wanted, *_accesses(options, "create", "get", "patch")]


def _undeploy_accesses(options: AgentOptions) -> list[Access]:
    return [
        Access("list", PODS.plural, options.namespace),
        Access("list", JOBS.qualified, options.namespace),
        Access("delete", JOBS.qualified, options.namespace),
        Access("get", CONFIG_MAPS.plural, options.namespace, name=manifests.POLICIES),
        Access("delete", CONFIG_MAPS.plural, options.namespace, name=manifests.POLICIES),
        Access("list", DAEMON_SETS.qualified),
        Access("list", NAMESPACES.plural),
        # What other deployments need of it is kept.
        Access("patch", CLUSTER_ROLES.qualified, name=manifests.USER),
        *_accesses(options, "get", "delete"),
    ]


def _accesses(options: AgentOptions, *verbs: str) -> Iterator[Access]:
    """To each object of the deployment; a right to create has no name."""
    for found in manifests.deployment(options):
        resource, metadata = BY_KIND[found["kind"]], found["metadata"]
        for verb in verbs:
            name = None if verb == "create" else metadata["name"]
            yield Access(verb, resource.qualified, metadata.get("namespace"), name=name)


# Contained agents: the admission policy that confines observers, and their rights, in a safe order.


RIGHTS = frozenset(resource.kind for resource in (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS))
"""Kinds of objects that grant observers their rights."""
_REFUSED = (*manifests.AGENT_COMMAND, "probe")
"""A command that the policy refuses, and that is harmless if it is not refused."""
IN_FORCE_SECONDS = 60.0
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
        raise DeployError("no agent is running, so the policy for observers cannot be tested")
    name, in_a_row = pods[0]["metadata"]["name"], 0
    try:
        async with asyncio.timeout(IN_FORCE_SECONDS):
            while in_a_row < _IN_A_ROW:
                in_a_row = in_a_row + 1 if await _refuses(api, options.namespace, name) else 0
                await asyncio.sleep(_POLL_SECONDS if not in_a_row else 0)
    except TimeoutError:
        raise DeployError(
            f"the policy {manifests.OBSERVER} does not confine exec in namespace {options.namespace}: other commands "
            f"are still allowed after {IN_FORCE_SECONDS:.0f} s",
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
        raise DeployError(f"cannot tell whether the policy for observers is in force: {error}") from None
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
    """True if this project created the object."""
    return (found["metadata"].get("labels") or {}).get(manifests.NAME_LABEL) == manifests.NAME


async def delete_ours(api: Api, resource: Resource, name: str, namespace: str | None, say: Say) -> bool:
    """Deletes one object if it exists and is ours. Returns whether it was deleted."""
    found = await api.get(resource, name, namespace)
    if found is None or not is_ours(found) or not await api.delete(resource, name, namespace):
        return False
    say(f"{resource.kind.lower()}/{name} deleted")
    return True
