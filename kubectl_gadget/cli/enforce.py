"""`kubectl gadget enforce`: policies carried out, for as long as the command runs.

A word of its own, so that nobody blocks anything by accident. The trap: what is in force is what the policy says within
what the other flags select, so without -A it is this namespace.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli import values
from kubectl_gadget.cli.connect import connect, say
from kubectl_gadget.cli.enforce_network import NetworkPolicyFlags, enforce_network, refuse
from kubectl_gadget.cli.flags import (
    SHOW,
    ClusterFlags,
    EngineFlags,
    ImageFlags,
    ScopeFlags,
    StartFlags,
    TargetFlags,
    flag,
)
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.help import Page
from kubectl_gadget.cli.observe import CHOICE, StoryFlags, StoryOutputFlags, tell
from kubectl_gadget.cli.policy_flags import PolicyFlags, engine_of
from kubectl_gadget.cli.run_options import RunFlags
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Example
from kubectl_gadget.policy_events.event import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import Told
    from kubectl_gadget.policies.engine.hooks import Engine
    from kubectl_gadget.session.delete_pods import PodDeleter

PAGE = Page(
    "Carry policies out in the kernel: deny with an error, kill, signal. For as long as this runs, and not longer.",
    (
        Example("kubectl gadget enforce -f policy.yaml", "in the pods of this namespace"),
        Example("kubectl gadget enforce --network-policy np.yaml", "a NetworkPolicy, on any network plugin"),
        Example("kubectl gadget enforce -f policy.yaml --dry-run", "only tell what would have been stopped"),
        Example("kubectl gadget enforce -f policy.yaml --action kill", "from user space, where a kernel cannot"),
    ),
    usage="[POD...] {-f FILE | --network-policy FILE} [flags]",
    more="A node that cannot deny before anything happens is refused, unless --allow-weaker takes a signal, which may "
    "come too late, as --action kill and delete-pod always do (docs/performance.md). Flags of observe work here, too.",
    silent=(CHOICE,),
)


_KERNEL, _KILL, _DELETE_POD = _ACTIONS = ("kernel", "kill", "delete-pod")
_DEEDS = ("Sigkill", "Signal", "Override")


@dataclass(frozen=True)
class EnforceFlags:
    """How strictly."""

    allow_weaker: Annotated[
        bool | None,
        flag(SHOW, "--allow-weaker/--no-allow-weaker", help="Also on nodes that can send signals only, or just watch"),
    ] = None
    dry_run: Annotated[
        bool | None, flag(SHOW, "--dry-run/--no-dry-run", help="Deny and kill nothing; tell what would have been")
    ] = None
    action: Annotated[
        str | None,
        flag(
            SHOW,
            "--action",
            metavar="WHO",
            help="Who acts: kernel (default), kill (agents), delete-pod",
            choices=_ACTIONS,
        ),
        values.one_of(*_ACTIONS),
    ] = None
    yes: Annotated[bool | None, flag(SHOW, "--yes/--no-yes", help="Delete pods without asking first")] = None


def enforce(
    pods: Pods,
    scope: ScopeFlags,
    target: TargetFlags,
    output: StoryOutputFlags,
    story: StoryFlags,
    policies: PolicyFlags,
    network: NetworkPolicyFlags,
    how: EnforceFlags,
    engine: EngineFlags,
    image: ImageFlags,
    start: StartFlags,
    cluster: ClusterFlags,
) -> int:
    """Checks, carries out, and tells."""
    flags = RunFlags(scope, target, output, engine, image, start, cluster)
    if network.named:
        for group in (replace(policies, objects=None), story, replace(how, dry_run=None)):
            refuse(group)
        return enforce_network(pods, network, policies.objects, bool(how.dry_run), flags)
    if not policies.named:
        raise UsageError(
            "no policy was named", "kubectl gadget enforce -f policy.yaml, or --policy NAME, or --network-policy FILE"
        )
    action = how.action or _KERNEL
    if action != _KERNEL and (how.dry_run or how.allow_weaker):
        raise UsageError(
            "--dry-run and --allow-weaker are about what the kernel does", "without them, or without --action"
        )
    if how.yes and action != _DELETE_POD:
        raise UsageError("--yes answers what --action delete-pod asks")
    compiled = engine_of(
        policies,
        scope.namespace,
        enforce=not how.dry_run and action == _KERNEL,
        allow_weaker=bool(how.allow_weaker),
        reaction="kill" if action == _KILL else "tell" if action == _DELETE_POD else "",
        calls_out=not how.dry_run,
    )
    if not how.dry_run and not any(hook.enforces or hook.reacting for hook in compiled.hooks):
        raise UsageError("these policies only watch", "kubectl gadget observe -f …, or actions in their selectors")
    if action == _DELETE_POD:
        return _delete_pods(compiled, pods, story, flags, bool(how.yes))
    return tell(compiled, pods, story, flags, policies.objects)


def _delete_pods(compiled: "Engine", pods: Pods, story: StoryFlags, flags: RunFlags, yes: bool) -> int:
    from kubectl_gadget.session.delete_pods import deleting_pods

    if flags.target.local:
        raise UsageError("--action delete-pod is for a cluster: --local has no pods that could be deleted")
    namespace = (
        None if flags.scope.all_namespaces else flags.scope.namespace or connect(flags.cluster).cluster.namespace
    )
    if not yes:
        _ask("all namespaces" if namespace is None else f"the namespace {namespace}")
    with deleting_pods(flags.cluster.options(), namespace, say) as deleter:
        return tell(compiled, pods, story, flags, on_told=partial(_react, deleter))


def _ask(where: str) -> None:
    """Raises UsageError unless the user agrees."""
    what = f"each pod in {where} that does what these policies deny is deleted, for as long as this runs"
    if not sys.stdin.isatty():
        raise UsageError(f"{what}, and there is nobody to ask", "--yes")
    sys.stderr.write(f"{what}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was begun")


def _react(deleter: "PodDeleter", told: "Told") -> None:
    event, container = told.happening, told.container
    if isinstance(event, PolicyEvent) and event.action in _DEEDS and container.pod:
        deleter.delete(container.namespace, container.pod, container.pod_uid, f"policy {event.policy}")
