"""`kubectl gadget enforce`: enforces policies, or standard network policies, for as long as the command runs.

It is a separate command, so that nothing is blocked by accident. A policy is in force only in the pods that
the other flags select, so without -A only in one namespace.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from kubectl_gadget import gadgets
from kubectl_gadget.cli import run
from kubectl_gadget.cli.cluster import chosen_namespace, own_namespace, warn_of_others
from kubectl_gadget.cli.flags import Switch, Text, Texts, TypedOnly, flag, spelling
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.observe import StoryFlags, StoryRunFlags, observe, show_story
from kubectl_gadget.cli.policy_flags import OBJECTS_ARE_LOCAL, POLICIES, PolicyFlags, engine_of
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, replaying, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.resources import NETWORK_POLICIES
from kubectl_gadget.run.run_options import GadgetRun, with_peer_names

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


_KERNEL, _KILL, _DELETE_POD, _ISOLATE_POD = _ACTIONS = ("kernel", "kill", "delete-pod", "isolate-pod")
_OF_PODS = (_DELETE_POD, _ISOLATE_POD)
_SORT_WAIT_OF_PODS = 0.02
"""The wait for sorting in seconds, unless --sort-wait is given: the client acts on rows when it prints them, so a long
wait delays it."""


@dataclass(frozen=True)
class EnforceFlags:
    """Flags for how policies are enforced."""

    allow_weaker: Annotated[
        Switch,
        flag(POLICIES, "--allow-weaker", "Accept nodes that can only send signals or only report"),
        TypedOnly.RIGHTS,
    ] = None
    dry_run: Annotated[
        Switch, flag(POLICIES, "--dry-run", "Only report what would be denied or killed"), TypedOnly.ACTION
    ] = None
    action: Annotated[
        Text,
        flag(POLICIES, "--action WHO", "kernel (default), kill (agents), delete-pod, isolate-pod", choices=_ACTIONS),
        TypedOnly.RIGHTS,
    ] = None
    yes: Annotated[Switch, flag(POLICIES, "--yes", "Delete or isolate pods without asking first"), TypedOnly.RIGHTS] = (
        None
    )

    def validate(self, local: bool) -> None:
        """Raises UsageError if flags contradict each other, or `local`."""
        if self.action not in (None, _KERNEL) and (self.dry_run or self.allow_weaker):
            raise UsageError(
                "--dry-run and --allow-weaker are only for --action kernel", "leave out --action, or these flags"
            )
        if self.yes and self.action not in _OF_PODS:
            raise UsageError("--yes is only for --action delete-pod and isolate-pod")
        if self.action == _DELETE_POD and local:
            raise UsageError("--action delete-pod cannot be used with --local: it needs a cluster")


def enforce(
    pods: Pods,
    flags: StoryRunFlags,
    story: StoryFlags,
    policies: PolicyFlags,
    network: NetworkPolicyFlags,
    how: EnforceFlags,
) -> int:
    if replaying.get() is not None:
        for given in (replace(policies, objects=None), network, how):
            refuse(given, "a replay, which enforces nothing")
        return replay_refusals(pods, flags, story, policies.objects)
    if network.named:
        for group in (replace(policies, objects=None), story, replace(how, dry_run=None)):
            refuse(group, "network policies")
        return enforce_network(pods, network, policies.objects, bool(how.dry_run), flags)
    policies.validate("kubectl gadget enforce -f policy.yaml, or --policy NAME, or --network-policy FILE")
    action = how.action or _KERNEL
    how.validate(bool(flags.target.local))
    compiled = engine_of(
        policies,
        partial(own_namespace, flags.scope, flags.cluster, flags.target.local),
        enforce=not how.dry_run and action == _KERNEL,
        allow_weaker=bool(how.allow_weaker),
        reaction="kill" if action == _KILL else "notify" if action in _OF_PODS else "",
        calls_out=not how.dry_run,
    )
    if not how.dry_run and not any(hook.enforces or hook.reacting for hook in compiled.hooks):
        raise UsageError("these policies deny nothing", "kubectl gadget observe -f …, or actions in their selectors")
    outcome = "deleted" if action == _DELETE_POD else "cut off from the network"
    if action in _OF_PODS and not how.yes and not _is_agreed(pods, flags, outcome):
        return 1  # not 0, which would say to a script that it was enforced
    if action in _OF_PODS and flags.engine.sort_wait is None:
        flags = replace(flags, engine=replace(flags.engine, sort_wait=_SORT_WAIT_OF_PODS))
    from kubectl_gadget.policies.reactions import deleting_pods, isolating_pods

    reaction, objects = None, policies.objects
    if action == _DELETE_POD:
        reaction, objects = deleting_pods(_namespace(flags), say), None
    elif action == _ISOLATE_POD:
        reaction = isolating_pods(say)
    return show_story(compiled, pods, story, flags, objects, reaction)


def _namespace(flags: StoryRunFlags) -> str | None:
    """The namespace of the run; None: all namespaces, as without a cluster if none is named."""
    return None if flags.scope.all_namespaces else chosen_namespace(flags.scope, flags.cluster, flags.target.local)


def _is_agreed(pods: Pods, flags: StoryRunFlags, outcome: str) -> bool:
    """Ask for confirmation; `outcome` says what happens to pods. Raises UsageError when nobody can be asked."""
    namespace = _namespace(flags)
    where = "all namespaces" if namespace is None else f"the namespace {namespace}"
    which = f"of {', '.join(pods)} in {where}" if pods else f"in {where}"
    what = f"while this runs, any pod {which} that violates these policies is {outcome}"
    if not sys.stdin.isatty():
        raise UsageError(f"{what}, and standard input is not a terminal, so you cannot be asked", "--yes")
    sys.stderr.write(f"{what}. Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        sys.stderr.write("nothing was changed\n")
        return False
    return True


# `--network-policy`: standard network policies, enforced by the kernel of each node


def enforce_network(
    pods: tuple[str, ...], policies: NetworkPolicyFlags, objects: str | None, dry_run: bool, flags: RunFlags
) -> int:
    """Checks and enforces policies, and prints each refusal. `objects` is a file with the cluster's objects: policies
    select by labels and addresses, which only the API server knows."""
    from kubectl_gadget.policies.network.run import NO_POLICY, LivePolicyTables, followed, read_files, read_objects

    if flags.output.output == "compact":
        raise UsageError("-o compact cannot be used with network policies", "-o table, or json")
    gadget = GadgetRun(gadgets.load_gadget(GADGET), {"dry-run": dry_run})
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
        options = options if flags.output.no_names else with_peer_names(options)
    return run.run(options, sys.stdout, sys.stderr)


def replay_refusals(pods: tuple[str, ...], flags: StoryRunFlags, story: StoryFlags, objects: str | None) -> int:
    """Shows what a recorded run refused: of network policies, or else of policies, as `observe` does. Raises
    UsageError."""
    from kubectl_gadget.recording.reader import RecordingReader

    asked = replaying.get()
    assert asked is not None
    with RecordingReader(asked.files[0]) as reader:
        names = [item.get("name") for item in reader.meta.get("gadgets", ()) if isinstance(item, dict)]
    if GADGET not in names:
        return observe(pods, flags, story, PolicyFlags(objects=objects))
    refuse(story, "network policies")
    return run.run(run_options((GadgetRun(gadgets.load_gadget(GADGET)),), pods, flags), sys.stdout, sys.stderr)


def refuse(given: object, where: str) -> None:
    """Rejects flags of a group that have no meaning there."""
    for name, value in vars(given).items():
        if value is not None:
            raise UsageError(f"{spelling(type(given), name)} cannot be used with {where}")
