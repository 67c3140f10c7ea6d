"""The objects created in a cluster: the files of manifests/, with the options of a run or a deployment filled in.

There is only one pod template, the DaemonSet's. On-demand pods are made from it, so the two cannot differ.
"""

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from kubectl_gadget.agents.payload import KEY, PYTHON, config_map, image_of, payload
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.resources import CONFIG_MAPS, JOBS, PODS, SERVICES, Object, Resource
from kubectl_gadget.wire.session_command import NO_GADGETS, STATUS, SessionCommand
from kubectl_gadget.yaml_files import safe_loader

NAME = "kubectl-gadget"
NAME_LABEL = "app.kubernetes.io/name"
COMPONENT_LABEL = "app.kubernetes.io/component"
RUN_LABEL = "kubectl-gadget/run"
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""Has the name of each namespace; the API server sets it."""
ON_DEMAND_ANNOTATION = "kubectl-gadget/on-demand"
"""On a namespace: a run created it, and it is deleted when no run uses it any more."""
LATEST_ANNOTATION = "kubectl-gadget/latest-run"
"""On a namespace: the run that began last. Each run changes it, so that nobody deletes what they saw before."""
USER_ANNOTATION = "kubectl-gadget/user"
"""On a run's anchor job: who started the run, in their own words."""
GADGETS_ANNOTATION = "kubectl-gadget/gadgets"
"""On a run's anchor job: its gadgets, separated by commas."""
EXPIRY = "kubectl-gadget-expiry"
"""The Job and the Service through which a namespace expires (shared_namespace.py)."""
DEPLOYMENT_PREFIX = "deployment.kubectl-gadget/"
"""On the ClusterRole, followed by the namespace of each deployment: the image of its agents."""
PULL_ANNOTATION = "kubectl-gadget/image-pull-policy"
"""On the ClusterRole: the image pull policy of the deployment's agents; empty: Kubernetes chooses."""
RESIDENT_SELECTOR = f"{NAME_LABEL}={NAME},{COMPONENT_LABEL}=agent"
_EXPIRY_LABELS = {NAME_LABEL: NAME, COMPONENT_LABEL: "expiry"}
OWN_LABELS = {NAME_LABEL: NAME}
"""On everything that deploy, a run or policy install created."""
POLICIES = "kubectl-gadget-policies"
"""The ConfigMap with installed policies, which resident agents mount."""
CONTAINER = "agent"
AGENT_COMMAND = ("python3", "-I", "-m", "kubectl_gadget.agent")
"""Starts the agent that is part of an image."""
_MAIN = "idle"
"""The command of an agent's main process; the words before it start the agent."""
APPLIED = ("namespace", "rbac-user", "daemonset")
"""The files that `deploy` applies, in order."""
APPLIED_CONTAINED = ("namespace", "observer-policy", "daemonset", "rbac-observer")
"""The same for contained agents: the right to exec comes last, when the policy that confines it is in force."""
OBSERVER = f"{NAME}-observer"
NAMESPACE_OBSERVER = f"{NAME}-namespace-observer"
USER = f"{NAME}-user"
CONTAINED_LABEL = f"{NAME}/contained"
"""On agents' pods, with the value "true"."""
_CONTENTS = "CONTENTS"
"""Placeholder in the policy for the gadgets that show contents."""
_BOOTSTRAP, _OFFER = "'BOOTSTRAP'", "'OFFER'"
"""Placeholders in the policy for the words that start the deployment's agent."""
_PAYLOADS = "agent"
"""The volume with the agent, one file per architecture."""


@functools.cache
def _text(name: str) -> str:
    """Reads a file of manifests/, from the wheel or from the source tree."""
    built = files("kubectl_gadget") / "built" / "manifests" / f"{name}.yaml"
    if built.is_file():
        return built.read_text()
    return (Path(__file__).parents[2] / "manifests" / f"{name}.yaml").read_text()


def documents(name: str) -> list[Object]:
    """Returns fresh copies of the objects in one file."""
    import yaml

    return list(yaml.load_all(_text(name), safe_loader()))


def deployment(
    options: AgentOptions, node_selector: Mapping[str, str] | None = None, contents: Sequence[str] = ()
) -> list[Object]:
    """Returns all objects of a resident deployment, in the order in which they are applied. `contents` are the gadgets
    that show data that is read, written or sent; contained agents run these for fewer observers."""
    names = APPLIED_CONTAINED if options.contained else APPLIED
    objects = [found for name in names for found in documents(name)]
    first = next(number for number, found in enumerate(objects) if found["kind"] == "DaemonSet")
    objects[first:first] = agent_config_maps()
    for found in objects:
        if found["kind"] == "Namespace":
            found["metadata"]["name"] = options.namespace
        elif "namespace" in found["metadata"]:
            found["metadata"]["namespace"] = options.namespace
        if found["kind"] == "ValidatingAdmissionPolicy":
            _fill_policy(found, options, contents)
        if found["kind"] == "DaemonSet":
            _fill_resident(found["spec"]["template"], options)
            found["spec"]["template"]["spec"]["nodeSelector"] |= dict(node_selector or {})
        if found["kind"] == "ClusterRole" and not options.contained:
            # It outlives the namespace, so undeploy can detect a deployment whose namespace was deleted, and its image.
            found["metadata"]["annotations"] = {
                DEPLOYMENT_PREFIX + options.namespace: image_of(options),
                # Always, since an earlier deployment's, with another field manager, would stay.
                PULL_ANNOTATION: options.image_pull_policy or "",
            }
    return objects


def agent_config_maps() -> list[Object]:
    """Returns one for each architecture, with the agent that resident pods run."""
    return [
        {
            "apiVersion": CONFIG_MAPS.api_version,
            "kind": CONFIG_MAPS.kind,
            "metadata": {"name": agent_config_map(machine), "namespace": NAME, "labels": {NAME_LABEL: NAME}},
            "binaryData": config_map(machine),
        }
        for machine in payload().architectures
    ]


def agent_config_map(machine: str) -> str:
    """Returns the name of the ConfigMap with the agent for `machine`, in the notation of `uname -m`."""
    return f"{NAME}-agent-{machine.replace('_', '-')}"


def is_contained(pod: Object) -> bool:
    """True if a pod, or a pod template, belongs to a contained agent."""
    return (pod["metadata"].get("labels") or {}).get(CONTAINED_LABEL) == "true"


def agent_command(resident: Object) -> tuple[str, ...]:
    """Returns the words that start the agent of a resident pod, or of a template for such pods."""
    words = resident["spec"]["containers"][0].get("command") or ()
    return tuple(words[: words.index(_MAIN)]) if _MAIN in words else AGENT_COMMAND


def is_of_another_client(resident: Object) -> bool:
    """True if a resident pod that is not contained runs an agent deployed by another version of the client."""
    command = agent_command(resident)
    return not is_contained(resident) and command not in (AGENT_COMMAND, payload().start)


def contained_command(session: SessionCommand, resident: Object) -> tuple[str, ...]:
    """Returns the command that starts a session in a contained agent, as the policy for observers requires it."""
    return (*agent_command(resident), *session._replace(contained=True, enforces=False).words())


def session_words(session: SessionCommand) -> tuple[str, ...]:
    """Returns the words that start a session in agents that are not contained, to follow those that start an agent."""
    # Such an agent leaves containers without a name to the client, so that no filter loses a race.
    return session._replace(namespace=None).words()


def own_command(resident: Object) -> tuple[str, ...]:
    """Returns the command that asks a resident pod's agent for its status."""
    if is_contained(resident):
        return contained_command(STATUS, resident)
    return (*agent_command(resident), *session_words(NO_GADGETS))


def namespace(options: AgentOptions) -> Object:
    """Returns the agents' namespace, marked as created for a run."""
    (found,) = documents("namespace")
    found["metadata"] |= {"name": options.namespace, "annotations": {ON_DEMAND_ANNOTATION: "true"}}
    return found


def second_namespace(namespace: str) -> str:
    """Returns the namespace of runs on demand that begin while `namespace` is being deleted, which takes at least
    5 s."""
    return f"{namespace}-2"


def is_on_demand(namespace: Object) -> bool:
    """True if a run created this namespace."""
    return ON_DEMAND_ANNOTATION in (namespace["metadata"].get("annotations") or {})


def on_demand_pod(options: AgentOptions, node: str, run: str, owner: Object) -> Object:
    """Returns one run's agent for one node. It is owned by `owner`, an `anchor_job`, and deleted with it."""
    (daemon_set,) = documents("daemonset")
    pod = copy.deepcopy(daemon_set["spec"]["template"]["spec"])
    _fill(pod, options, image_of(options))
    container = pod["containers"][0]
    container["command"] = [*PYTHON, "-c", payload().on_demand, f"{options.idle_timeout:.0f}"]
    # Without a session no agent in the pod could answer; a main process that hangs ends with the run.
    del container["livenessProbe"]
    _leave_policies(pod, ("policies",) if options.pins else ("policies", "bpf"))
    del pod["nodeSelector"], pod["affinity"]
    # Without a grace period a pod is gone from the API immediately, so a dead node does not keep the namespace.
    pod |= {"nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    metadata = {
        "generateName": f"agent-{run}-",
        "namespace": options.namespace,
        "labels": run_labels(run),
        "ownerReferences": [owner_reference(JOBS, owner)],
    }
    return {"apiVersion": PODS.api_version, "kind": PODS.kind, "metadata": metadata, "spec": pod}


def anchor_job(options: AgentOptions, run: str, seconds: int, user: str = "", gadgets: Sequence[str] = ()) -> Object:
    """Returns a job that never runs anything. It is complete immediately, and the cluster deletes it, with all it owns,
    after `seconds`. The client postpones that while it lives, so a run's objects are deleted even when its client was
    killed. `user` started the run, with `gadgets`.
    """
    metadata = {
        "name": anchor_name(run),
        "namespace": options.namespace,
        "labels": run_labels(run),
        "annotations": {USER_ANNOTATION: user, GADGETS_ANNOTATION: ",".join(gadgets)},
    }
    return _timer(metadata, seconds)


def expiry_job(namespace: str, seconds: int) -> Object:
    """Return the job whose end deletes `namespace`, in `seconds` unless runs postpone it."""
    return _timer({"name": EXPIRY, "namespace": namespace, "labels": _EXPIRY_LABELS}, seconds)


def expiry_service(namespace: str, owner: Object) -> Object:
    """Returns a service that serves nothing. It belongs to `owner`, an `expiry_job`, and its IPAddress to it."""
    metadata = {
        "name": EXPIRY,
        "namespace": namespace,
        "labels": _EXPIRY_LABELS,
        "ownerReferences": [owner_reference(JOBS, owner)],
    }
    spec = {"type": "ClusterIP", "ports": [{"name": "none", "port": 9}]}
    return {"apiVersion": SERVICES.api_version, "kind": SERVICES.kind, "metadata": metadata, "spec": spec}


def owner_reference(resource: Resource, owner: Object) -> dict[str, str]:
    """Returns the reference with which an object names its owner."""
    names = {key: str(owner["metadata"][key]) for key in ("name", "uid")}
    return {"apiVersion": resource.api_version, "kind": resource.kind, **names}


def _timer(metadata: Object, seconds: int) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}}
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": metadata,
        "spec": {"completions": 0, "parallelism": 0, "ttlSecondsAfterFinished": seconds, "template": template},
    }


def anchor_name(run: str) -> str:
    """Returns the name of a run's anchor job."""
    return f"run-{run}"


def run_labels(run: str) -> dict[str, str]:
    """Returns the labels of everything that one run creates."""
    return {NAME_LABEL: NAME, COMPONENT_LABEL: "on-demand", RUN_LABEL: run}


def _fill(pod: Object, options: AgentOptions, image: str) -> None:
    container = pod["containers"][0]
    container["image"] = image
    if options.image_pull_policy:
        container["imagePullPolicy"] = options.image_pull_policy
    if options.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": options.image_pull_secret}]
    if options.bcc:
        _add_headers(pod)
    if options.privileged or options.bcc:
        context = container["securityContext"]
        del context["capabilities"], context["allowPrivilegeEscalation"]
        context["privileged"] = True
        context["seccompProfile"] = {"type": "Unconfined"}


def _fill_resident(template: Object, options: AgentOptions) -> None:
    pod = template["spec"]
    _fill(pod, options, image_of(options))
    if options.enforcing:
        # Installed policies need their agent: no other pod may evict it on a full node.
        pod["priorityClassName"] = "system-node-critical"
    _run_from_config_maps(pod)
    if not options.contained:
        return
    template["metadata"]["labels"][CONTAINED_LABEL] = "true"
    _leave_policies(pod, ("policies", "bpf"))
    container = pod["containers"][0]
    container["command"] = [*payload().start, _MAIN, "--idle-timeout", "0"]
    container["env"].append({"name": "KUBECTL_GADGET_CONTAINED", "value": "1"})
    container["securityContext"]["capabilities"]["add"].remove("KILL")


def _run_from_config_maps(pod: Object) -> None:
    """Starts the agent from the ConfigMaps instead of the image's own, which is used only if it is the same."""
    container = pod["containers"][0]
    probe = container["livenessProbe"]["exec"]
    for holder in (container, probe):
        holder["command"] = [*payload().start, *holder["command"][len(AGENT_COMMAND) :]]
    sources = [
        {"configMap": {"name": agent_config_map(machine), "items": [{"key": KEY, "path": f"{machine}.xz"}]}}
        for machine in payload().architectures
    ]
    pod["volumes"].append({"name": _PAYLOADS, "projected": {"sources": sources}})
    container["volumeMounts"].append({"name": _PAYLOADS, "mountPath": "/agent", "readOnly": True})


def _fill_policy(policy: Object, options: AgentOptions, contents: Sequence[str]) -> None:
    spec = policy["spec"]
    labels = spec["matchConstraints"]["namespaceSelector"]["matchLabels"]
    labels[NAMESPACE_NAME_LABEL] = options.namespace
    names = "', '".join(sorted(contents))
    filled = {_CONTENTS: names, _BOOTSTRAP: _cel(payload().bootstrap), _OFFER: _cel(payload().offer)}
    for validation in spec["validations"]:
        for place, text in filled.items():
            validation["expression"] = validation["expression"].replace(place, text)


def _cel(text: str) -> str:
    """Return a text as a CEL literal; CEL has JSON's escapes."""
    return json.dumps(text)


def _leave_policies(pod: Object, volumes: tuple[str, ...]) -> None:
    """Removes the volumes of installed policies, which belong to resident agents only: each node has one."""
    for where in (pod["volumes"], pod["containers"][0]["volumeMounts"]):
        where[:] = [one for one in where if one["name"] not in volumes]


def _add_headers(pod: Object) -> None:
    """Mounts the places where bcc looks for kernel headers, debugfs for attaching, and space for unpacking."""
    folders = {"modules": "/lib/modules", "sources": "/usr/src", "debug": "/sys/kernel/debug"}
    mounts = pod["containers"][0]["volumeMounts"]
    for name, path in folders.items():
        pod["volumes"].append({"name": name, "hostPath": {"path": path}})
        mounts.append({"name": name, "mountPath": path, "readOnly": name != "debug"})
    pod["volumes"].append({"name": "tmp", "emptyDir": {}})
    mounts.append({"name": "tmp", "mountPath": "/tmp"})
