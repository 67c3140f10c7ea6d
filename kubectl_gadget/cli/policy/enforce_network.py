"""`kubectl gadget enforce --network-policy`: standard network policies, enforced by the kernel of each node.

The trap: policies select by labels and addresses, which only the API server knows, so without a cluster a file must
provide them.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from kubectl_gadget.cli.commands.observe import StoryFlags, StoryRunFlags, observe
from kubectl_gadget.cli.flags.connect import say
from kubectl_gadget.cli.flags.flag_declaration import Switch, Texts, TypedOnly, flag, spelling
from kubectl_gadget.cli.flags.own_namespace import chosen_namespace, own_namespace, warn_of_others
from kubectl_gadget.cli.flags.policy_flags import OBJECTS_ARE_LOCAL, PolicyFlags
from kubectl_gadget.cli.flags.run_flags import RunFlags, replaying, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.run.run_options import GadgetRun

_SECTION = "Network policies"
GADGET = "network_policy"


@dataclass(frozen=True)
class NetworkPolicyFlags:
    """Flags that select policies and the source of labels and addresses."""

    network_policies: Annotated[
        Texts,
        flag(_SECTION, "--network-policy FILE", "NetworkPolicies: a file, a folder, or - (stdin)"),
        TypedOnly.ACTION,
    ] = None
    from_cluster: Annotated[
        Switch, flag(_SECTION, "--from-cluster", "NetworkPolicies that the cluster has"), TypedOnly.ACTION
    ] = None

    @property
    def named(self) -> bool:
        return bool(self.network_policies or self.from_cluster)


def enforce_network(
    pods: tuple[str, ...], policies: NetworkPolicyFlags, objects: str | None, dry_run: bool, flags: RunFlags
) -> int:
    """Checks and enforces policies, and prints each refusal. `objects` is a file with the cluster's objects."""
    from kubectl_gadget.gadgets import load_gadget
    from kubectl_gadget.kube.api.resources import NETWORK_POLICIES
    from kubectl_gadget.policies.network.run import NO_POLICY, LivePolicyTables, followed, read_files, read_objects
    from kubectl_gadget.run.run import run

    if flags.output.output == "compact":
        raise UsageError("-o compact cannot be used with network policies", "-o table, or json")
    gadget = GadgetRun(load_gadget(GADGET), {"dry-run": dry_run})
    options = run_options((gadget,), pods, flags)
    where = flags.scope, flags.cluster, options.local
    given = read_files(policies.network_policies or (), own_namespace(*where))
    made = LivePolicyTables(given)
    options = replace(options, gadgets=(replace(gadget, tables=made.tables),))
    if not options.selection.all_namespaces and (chosen := chosen_namespace(*where)):
        warn_of_others("network policies", {policy["metadata"]["namespace"] for policy in given}, chosen)
    if objects and not options.local:
        raise UsageError(OBJECTS_ARE_LOCAL)
    if options.local and not objects:
        raise UsageError(
            "without a cluster, the labels and addresses of pods are not known",
            "--objects FILE, with what kubectl get pods,namespaces,services,nodes -A -o yaml prints",
        )
    warn: Callable[[str], object] = say if not options.quiet else str
    if objects:
        found = read_objects(objects)
        if not policies.from_cluster:
            found.pop(NETWORK_POLICIES, None)
        made.take(found)
        if not made.count:
            warn(NO_POLICY)
    else:
        follower = followed(made, bool(policies.from_cluster), warn)
        options = replace(options, followers=(follower,))
    return run(options, sys.stdout, sys.stderr)


def replay_refusals(pods: tuple[str, ...], flags: StoryRunFlags, story: StoryFlags, objects: str | None) -> int:
    """Shows what a recorded run refused: of network policies, or else of policies, as `observe` does. Raises
    UsageError."""
    from kubectl_gadget.gadgets import load_gadget
    from kubectl_gadget.recording.reader import RecordingReader
    from kubectl_gadget.run.run import run

    asked = replaying.get()
    assert asked is not None
    with RecordingReader(asked.files[0]) as reader:
        names = [item.get("name") for item in reader.meta.get("gadgets", ()) if isinstance(item, dict)]
    if GADGET not in names:
        return observe(pods, flags, story, PolicyFlags(objects=objects))
    refuse(story, "network policies")
    return run(run_options((GadgetRun(load_gadget(GADGET)),), pods, flags), sys.stdout, sys.stderr)


def refuse(given: object, where: str) -> None:
    """Rejects flags of a group that have no meaning there."""
    for name, value in vars(given).items():
        if value is not None:
            raise UsageError(f"{spelling(type(given), name)} cannot be used with {where}")
